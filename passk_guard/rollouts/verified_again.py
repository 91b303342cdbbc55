"""Rollouts that are kept to be verified again: which ones, and how processes share the work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from passk_guard.rollouts.group import RolloutGroup
from passk_guard.runtime.processes import everywhere, world


@dataclass(frozen=True)
class FixedRollout:
    """A verified rollout, with what a verifier needs of it beside its row.

    Attributes:
        row: the prompt's row id in the held-out pool.
        completion: text, chat messages or whatever the verifier sees, of plain values.
        completion_ids: its tokens.
        right: its first verdict.
    """

    row: int
    completion: Any
    completion_ids: tuple[int, ...]
    right: bool


def fixed_rollouts(groups: Sequence[RolloutGroup], most: int) -> tuple[FixedRollout, ...]:
    """Some rollouts, whatever their verdict, spread over the prompts; none where there is no text.

    Taken as many right as wrong, those on which a verifier errs would be too many.

    Args:
        groups: verified, with their completions.
        most: how many to keep.
    """
    found: list[tuple[int, FixedRollout]] = []
    for group in groups:
        if group.completions is None:
            continue
        tokens = completion_ids(group)
        for j, (verdict, completion) in enumerate(
            zip(group.success.tolist(), group.completions, strict=True)
        ):
            if verdict == verdict and _plain(completion):  # a NaN is no verdict
                one = FixedRollout(group.row, completion, tuple(tokens[j]), bool(verdict))
                found.append((j, one))
    found.sort(key=lambda one: one[0])  # the first of every prompt, then the second
    return tuple(rollout for _, rollout in found[:most])


def without_completions(groups: Sequence[RolloutGroup]) -> list[RolloutGroup]:
    """What is kept of verified groups: texts serve the verifier alone."""
    return [g if g.completions is None else replace(g, completions=None) for g in groups]


def completion_ids(group: RolloutGroup) -> list[list[int]]:
    """Token ids of each completion."""
    pairs = zip(group.input_ids, group.completion_mask, strict=True)
    return [ids[mask.bool()].tolist() for ids, mask in pairs]


def shared_out(count: int, verify: Callable[[list[int]], list[float]]) -> list[float]:
    """Scores of so many rollouts, each verified by one process; all of them get all scores.

    Args:
        count: of rollouts.
        verify: gives the scores of some of them, by index.

    Raises:
        Exception: whatever ``verify`` raises, on every process.
    """
    rank, size = world()
    mine = list(range(rank, count, size))
    parts = everywhere(lambda: verify(mine) if mine else [])
    return [parts[i % size][i // size] for i in range(count)]


def _plain(value: Any) -> bool:
    """Whether a checkpoint can keep it."""
    if isinstance(value, Mapping):
        return type(value) is dict and all(map(_plain, value)) and all(map(_plain, value.values()))
    if isinstance(value, list):
        return type(value) is list and all(map(_plain, value))
    return value is None or type(value) in (str, int, float, bool)
