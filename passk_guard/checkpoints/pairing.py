"""The prompts that are in both files, and what to bear in mind when they are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from passk_guard.counts.counts import Counts

_FEW_PROMPTS = 200
_SURELY_THERE = 4  # of a kind, on average: one sample in 50 has none then


@dataclass(frozen=True)
class Pairs:
    """Right rollouts and rollouts, ``(m,)``, of the ``m`` prompts in both files."""

    ids: tuple[str, ...]
    before: np.ndarray
    n_before: np.ndarray
    after: np.ndarray
    n_after: np.ndarray
    groups: tuple[str, ...] | None
    only_in_a: int
    only_in_b: int
    remarks: tuple[str, ...]


def pair(a: Counts, b: Counts) -> Pairs:
    """Find the prompts that are in both, by id.

    Raises:
        ValueError: none is, or one of the two does not hold counts.
    """
    for counts in (a, b):
        _check(counts)
    where = {id: j for j, id in enumerate(b.ids)}
    first = [i for i, id in enumerate(a.ids) if id in where]
    if not first:
        raise ValueError(
            f"no prompt is in both {a.name} ({_some(a.ids)}) and {b.name} ({_some(b.ids)}). "
            "Prompts are paired by id: give the same prompt the same id in both."
        )
    last = [where[a.ids[i]] for i in first]
    ids = tuple(a.ids[i] for i in first)
    groups = _of(a.groups, first) or _of(b.groups, last)
    pairs = Pairs(
        ids=ids,
        before=np.asarray(a.correct)[first],
        n_before=np.asarray(a.n)[first],
        after=np.asarray(b.correct)[last],
        n_after=np.asarray(b.n)[last],
        groups=groups,
        only_in_a=len(a) - len(ids),
        only_in_b=len(b) - len(ids),
        remarks=(),
    )
    moved = 0
    if a.groups is not None and b.groups is not None:
        moved = sum(a.groups[i] != b.groups[j] for i, j in zip(first, last, strict=True))
    remarks = (*a.remarks, *b.remarks, *_remarks(a, b, pairs, moved))
    return replace(pairs, remarks=tuple(dict.fromkeys(remarks)))


def _check(counts: Counts) -> None:
    """Counts made by hand may be wrong; those that were read are not."""
    c, n = np.asarray(counts.correct), np.asarray(counts.n)
    m = len(counts.ids)
    if c.shape != (m,) or n.shape != (m,) or len(counts.groups or counts.ids) != m:
        raise ValueError(
            f"{counts.name}: {m} ids come with correct of shape {c.shape}, n of shape {n.shape}"
            f"{'' if counts.groups is None else f' and {len(counts.groups)} groups'}. "
            "Give one of each to every prompt."
        )
    if len(set(counts.ids)) != m:
        twice = next(id for id in counts.ids if counts.ids.count(id) > 1)
        raise ValueError(
            f"{counts.name}: prompt {twice!r} is there twice. Make counts with "
            "passk_guard.counts.counts.gather, which adds them up."
        )
    right = (c >= 0) & (c <= n) & (n >= 1) & (c % 1 == 0) & (n % 1 == 0)
    if wrong := int(np.sum(~right)):
        raise ValueError(
            f"{counts.name}: {wrong} prompts have no whole count between 0 and n, with n at least "
            "1. correct is the number of right rollouts."
        )


def _remarks(a: Counts, b: Counts, pairs: Pairs, moved: int) -> list[str]:
    said = ["Prompts are paired by id; their order in the files does not matter."]
    if pairs.only_in_a or pairs.only_in_b:
        left = [
            f"{_prompts(count)} in {name} only"
            for count, name in ((pairs.only_in_a, a.name), (pairs.only_in_b, b.name))
            if count
        ]
        said.append(f"Left out: {' and '.join(left)}.")
    if a.verifier and b.verifier and a.verifier != b.verifier:
        said.append(
            f"The verifiers differ: {a.verifier} in {a.name}, {b.verifier} in {b.name}. What "
            "changed may be the verifier: judge both with one."
        )
    for key in sorted(a.settings.keys() & b.settings.keys()):
        if a.settings[key] != b.settings[key]:
            said.append(
                f"{key} is {a.settings[key]} in {a.name} and {b.settings[key]} in {b.name}: the "
                "change is that of model and sampling together."
            )
    ranges = [(int(n.min()), int(n.max())) for n in (pairs.n_before, pairs.n_after)]
    if len({end for ends in ranges for end in ends}) > 1:
        shown = [f"{low}" if low == high else f"{low} to {high}" for low, high in ranges]
        said.append(
            f"Rollouts per prompt: {shown[0]} in {a.name}, {shown[1]} in {b.name}. pass@k rests on "
            "the prompts that have k or more in both."
        )
    both = [id for id in pairs.ids if id in a.texts and id in b.texts]
    if other_text := sum(a.texts[id] != b.texts[id] for id in both):
        said.append(
            f"{_prompts(other_text)} of {len(pairs.ids):,} with the same id have different texts "
            "in the two. If that is not the chat template alone, these are not the same prompts."
        )
    if moved:
        said.append(f"{_prompts(moved)} changed groups: those of {a.name} are used.")
    same = np.array_equal(pairs.before, pairs.after) and ranges[0] == ranges[1]
    if same and np.array_equal(pairs.n_before, pairs.n_after):
        said.append("All counts are the same in both: are these the same rollouts?")
    if (m := len(pairs.ids)) < _FEW_PROMPTS:
        share = min(_SURELY_THERE / m, 1)
        said.append(
            f"{_prompts(m)} are few: a kind of which there are less than {100 * share:.0f} % may "
            "be missing from them, and no interval tells what it does."
        )
    return said


def _of(groups: Sequence[str] | None, at: list[int]) -> tuple[str, ...] | None:
    return None if groups is None else tuple(groups[i] for i in at)


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(repr(id if len(id) <= 40 else f"{id[:37]}...") for id in ids[:2])
    return f"ids such as {shown}" if len(ids) > 2 else f"ids {shown}"


def _prompts(count: int) -> str:
    return f"{count:,} prompt{'' if count == 1 else 's'}"
