"""A task of the field study: problems with worked solutions, and a program that verifies."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WRONG = 0.1  # share of wrong labels where a task has them
PARTS = {"test": range(1), "pool": range(1, 4), "training": range(4, 10)}


@dataclass(frozen=True)
class Problem:
    """One of a task.

    Attributes:
        prompt: what the model sees.
        solution: worked, as supervised warm-up shows it; ends with the answer.
        answer: what the verifier wants.
        level: of difficulty, by name.
        wrong: whether its label follows the wrong convention.
    """

    prompt: str
    solution: str
    answer: str
    level: str
    wrong: bool = False


@dataclass(frozen=True)
class Task:
    """A task, with a share of wrong labels or none.

    Attributes:
        name: in tables and records.
        draw: ``draw(rng, wrong)`` gives a problem; ``wrong``: by the wrong convention, and such
            that it matters.
        verify: 1 for right, 0 for wrong, from completions and the rows' columns.
        longest: tokens that a completion may have.
        learning_rate: of reinforcement.
        wrong_labels: share of rows whose label is wrong.
    """

    name: str
    draw: Callable[[random.Random, bool], Problem]
    verify: Callable[..., list[float]]
    longest: int
    learning_rate: float
    wrong_labels: float = 0.0

    def rows(self, part: str, size: int, seed: int) -> list[dict[str, Any]]:
        """Different problems of ``"training"``, ``"pool"`` or ``"test"``; no prompt is in two."""
        rng, found = random.Random(f"{self.name}-{part}-{seed}"), dict[str, dict[str, Any]]()
        while len(found) < size:
            wrong = rng.random() < self.wrong_labels
            problem = self.draw(rng, wrong)
            if part_of(problem.prompt) == part and problem.prompt not in found:
                found[problem.prompt] = {**problem.__dict__, "wrong": wrong}
        return list(found.values())


def part_of(prompt: str) -> str:
    """By a hash of the prompt, so that the parts stay apart whatever is drawn."""
    tenth = hashlib.sha256(prompt.encode()).digest()[0] % 10
    return next(part for part, tenths in PARTS.items() if tenth in tenths)
