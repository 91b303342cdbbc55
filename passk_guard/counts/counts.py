"""Right rollouts of each prompt: all that a comparison of two checkpoints needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class PromptCount:
    """Some rollouts of one prompt: all of them, one, or anything between.

    Attributes:
        id: of the prompt; the same in both files that are compared.
        correct: right rollouts.
        n: rollouts with a verdict.
        group: that the prompt belongs to, where there are groups.
        text: of the prompt, where the source has it.
    """

    id: str
    correct: int
    n: int
    group: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class Counts:
    """Right rollouts of ``m`` prompts.

    Attributes:
        name: what it is called in sentences and tables: a file's name, a model's.
        ids: of the prompts, all different, in the order of the source.
        correct: ``(m,)`` right rollouts.
        n: ``(m,)`` rollouts with a verdict, at least 1.
        groups: ``m`` names; ``None`` where the source knows no groups.
        texts: by id, of the prompts whose text the source has.
        verifier: what decided, where the source tells.
        settings: of the sampling, where the source tells: ``temperature`` and the like.
        remarks: sentences about what was left out or put together on the way.
    """

    name: str
    ids: tuple[str, ...]
    correct: np.ndarray
    n: np.ndarray
    groups: tuple[str, ...] | None = None
    texts: Mapping[str, str] = field(default_factory=dict, repr=False)
    verifier: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


def gather(
    name: str,
    found: Iterable[PromptCount],
    *,
    verifier: str | None = None,
    settings: Mapping[str, Any] | None = None,
    remarks: Iterable[str] = (),
) -> Counts:
    """Put together what was found, prompt by prompt; counts of one id are added up.

    Args:
        name: of the source.
        found: in any order.
        verifier: what decided, where that is known.
        settings: of the sampling.
        remarks: on how it was read.

    A group that is told of one of a prompt's rollouts is that of the prompt.

    Raises:
        ValueError: there is nothing, no rollout has a verdict, a count is not whole or beyond n, or
            one prompt has two groups.

    >>> gather("a.jsonl", [PromptCount("x", 1, 1), PromptCount("x", 0, 1)]).correct.tolist()
    [1]
    """
    counts: dict[str, tuple[int, int]] = {}
    groups: dict[str, str | None] = {}
    texts: dict[str, str] = {}
    for one in found:
        if not 0 <= one.correct <= one.n:
            raise ValueError(
                f"{name}: prompt {one.id!r} has correct={one.correct} of n={one.n}. correct is the "
                "number of right rollouts, between 0 and n."
            )
        c, n = counts.get(one.id, (0, 0))
        counts[one.id] = c + one.correct, n + one.n
        group = groups.get(one.id)
        groups[one.id] = one.group if group is None else group
        if one.group is not None and groups[one.id] != one.group:
            raise ValueError(
                f"{name}: prompt {one.id!r} is in the groups {groups[one.id]!r} and {one.group!r}. "
                "A prompt has one group: give different prompts different ids."
            )
        if one.text is not None:
            texts.setdefault(one.id, one.text)
    if not counts:
        raise ValueError(f"{name} is empty: it holds no prompt.")
    without = sum(n == 0 for _, n in counts.values())
    kept = [id for id, (_, n) in counts.items() if n]
    if not kept:
        raise ValueError(f"{name}: none of its {len(counts)} prompts has a rollout with a verdict.")
    said = [*remarks]
    if without:
        said.append(f"{name}: {without} prompts without a verdict are left out.")
    grouped = any(groups[id] is not None for id in kept)
    return Counts(
        name=name,
        ids=tuple(kept),
        correct=np.array([counts[id][0] for id in kept], dtype=np.int64),
        n=np.array([counts[id][1] for id in kept], dtype=np.int64),
        groups=tuple(groups[id] or "" for id in kept) if grouped else None,
        texts=texts,
        verifier=verifier,
        settings=dict(settings or {}),
        remarks=tuple(said),
    )
