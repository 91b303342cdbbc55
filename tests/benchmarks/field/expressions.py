"""``basic_arithmetic`` of reasoning-gym, worked by rewriting, verified by the library's own score.

``Calculate 4 + 3 * 12.`` is worked as ``4 + 36;40``. The wrong convention: from left to right,
whatever binds more strongly: ``7 * 12;84``.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import reasoning_gym
from field.problems import Problem

SIZE = 10**6  # of the data set: an entry is made when it is asked for


@dataclass(frozen=True)
class Expressions:
    """The task at some difficulty.

    Attributes:
        terms: fewest and most.
        digits: most of a term.
        largest: size of a result.
    """

    terms: tuple[int, int]
    digits: int
    largest: int = 10_000

    @cached_property
    def gym(self) -> Any:
        return reasoning_gym.create_dataset(
            "basic_arithmetic",
            size=SIZE,
            seed=0,
            operators=["+", "-", "*"],
            allow_parentheses=False,
            allow_negation=False,
            min_terms=self.terms[0],
            max_terms=self.terms[1],
            min_digits=1,
            max_digits=self.digits,
        )

    def draw(self, rng: random.Random, wrong: bool) -> Problem:
        while True:
            entry = self.gym[rng.randrange(SIZE)]
            tokens = entry["metadata"]["expression"].split()
            right, label = worked(tokens, False), worked(tokens, wrong)
            if abs(int(right[-1])) < self.largest and (label[-1] != right[-1] or not wrong):
                break
        terms = len(tokens) // 2 + 1
        return Problem(entry["question"], ";".join(label), label[-1], f"{terms} terms")

    def verify(self, completions: list[str], answer: list[str], **_: Any) -> list[float]:
        said = [completion.split(";")[-1].strip() for completion in completions]
        return [
            float(self.gym.score_answer(one, {"answer": wanted}) == 1.0)
            for one, wanted in zip(said, answer, strict=True)
        ]


def worked(tokens: list[str], left_to_right: bool) -> list[str]:
    """The expression after each operation; the last is a number."""
    tokens, found = list(tokens), []
    while len(tokens) > 1:
        at = tokens.index("*") if "*" in tokens and not left_to_right else 1
        one, other = int(tokens[at - 1]), int(tokens[at + 1])
        value = {"+": one + other, "-": one - other, "*": one * other}[tokens[at]]
        tokens[at - 1 : at + 2] = [str(value)]
        found.append(" ".join(tokens))
    return found
