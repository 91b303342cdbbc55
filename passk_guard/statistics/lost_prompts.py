"""Which prompts were surely lost and which won between two checkpoints, however few of many.

A prompt is lost if its pass@1 fell by more than a margin. Exact tests of that, one per prompt, go
through Benjamini and Hochberg's (1995) rule. Taken over all prompts the rule pays for each of them,
though most have not changed at all: a few lost among thousands would hardly be named. So only the
*candidates* are tested, prompts whose observed pass@1 fell by more than the margin, and each
p-value is conditional on being one (as Zhao, Small and Su 2019 do for normal tests): the chance of
a pair of counts that speaks as loudly of a loss, over the chance of any candidate, at the unknown
pass@1 that makes this ratio largest. Prompts are sampled independently of each other; so, given who
the candidates are, their p-values are valid and independent, and the rule's bound holds. A p-value
is about twice the unconditional one, and the rule pays for candidates only, of which those with too
few rollouts to be named at all are left out.

Pairs of counts are ordered by their studentised difference (:func:`loss_order`). The largest
chance is where the loss is just the margin; ``tests/statistics/test_lost_prompts.py`` enumerates
the others.

Stored rollouts scored again give no such evidence: a policy that merely writes the same answer in
another way gives every stored right rollout a small ratio, which looks like a loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import lgamma
from typing import Any

import numpy as np

_GRID = 400  # of the unknown pass@1: the largest p-value is found to 1 %
_LARGE = 1 << 20  # pairs of counts: beyond, they are ordered by their plain difference


@dataclass(frozen=True)
class ChangedPrompts:
    """Prompts whose pass@1 surely changed by more than ``margin``.

    Of the lost ones no more than the share ``false_discovery`` is expected to be wrong, and
    likewise of the won ones.

    Attributes:
        lost: positions, the surest first.
        won: likewise.
        fell: candidates, whose observed pass@1 fell by more than the margin.
        rose: likewise.
        nameable: prompts with rollouts enough to be named, were they alone.
        false_discovery: the bound.
        margin: of pass@1; changes up to it are no loss and no win.
    """

    lost: tuple[int, ...] = field(repr=False)
    won: tuple[int, ...] = field(repr=False)
    fell: int
    rose: int
    nameable: int
    false_discovery: float
    margin: float


def changed_prompts(
    before: Any,
    n_before: Any,
    after: Any,
    n_after: Any,
    margin: float = 0.1,
    false_discovery: float = 0.05,
) -> ChangedPrompts:
    """Name the prompts that surely changed.

    Args:
        before: ``(m,)`` right rollouts of each prompt in the first file.
        n_before: ``(m,)`` rollouts, or one number.
        after: ``(m,)`` right rollouts in the second file.
        n_after: ``(m,)`` rollouts, or one number.
        margin: change of pass@1 that does not count, from 0 and below 1.
        false_discovery: share of the named that may be wrong on average, above 0 and below 1.

    Raises:
        ValueError: a setting is out of range.

    >>> changed_prompts([16, 8, 8], 16, [1, 7, 9], 16).lost
    (0,)
    """
    if not 0 <= margin < 1:
        raise ValueError(f"margin must lie from 0 up to but not at 1, got {margin!r}.")
    if not 0 < false_discovery < 1:
        raise ValueError(f"false_discovery must lie between 0 and 1, got {false_discovery!r}.")
    c, n, d, m = (np.atleast_1d(np.asarray(a)) for a in (before, n_before, after, n_after))
    c, n, d, m = np.broadcast_arrays(c, n, d, m)
    pairs, which, times = np.unique(
        np.stack([n, m], axis=1), axis=0, return_inverse=True, return_counts=True
    )
    # The loudest pair of counts is the one that cannot be outdone. Seen from the other side, wrong
    # for right and later for first, a win is a loss: so the least p-value is the same for both.
    best = [candidate_p_values(p, q, np.array([[p, 0]]), margin)[0] for p, q in pairs.tolist()]
    enough = np.array(best) <= false_discovery
    able = enough[which.ravel()]
    (lost, fell), (won, rose) = (
        _named(*four, able, margin, false_discovery) for four in ((c, n, d, m), (d, m, c, n))
    )
    nameable = int(times[enough].sum())
    return ChangedPrompts(lost, won, fell, rose, nameable, false_discovery, margin)


def candidate_p_values(n: int, later: int, counts: np.ndarray, margin: float) -> np.ndarray:
    """p-values of "pass@1 has not fallen by more than ``margin``", given that it seems to have.

    Args:
        n: rollouts at first.
        later: rollouts later.
        counts: ``(candidates, 2)`` right rollouts at first and later, where the share fell by more
            than ``margin``.
        margin: 0 to 1.

    Returns:
        ``(candidates,)``, 1 for who is no candidate.
    """
    first, last = _chances(n, margin, 0.0)[0], _chances(later, margin, margin)[1]
    if (n + 1) * (later + 1) <= _LARGE:
        order = loss_order(n, later, margin)

        def below(speaks: float) -> Any:  # of each count at first, how many later counts are as low
            return (order >= speaks).sum(1)

        speaks = order[counts[:, 0], counts[:, 1]]
        least = float(order[order > 0].min(initial=np.inf))
    else:
        share = np.arange(n + 1) / n - margin

        def below(speaks: float) -> Any:
            return np.clip(np.floor((share - speaks) * later + 1e-6) + 1, 0, later + 1).astype(int)

        speaks = counts[:, 0] / n - margin - counts[:, 1] / later
        least = 0.5 / (n * later)  # no share of a candidate's fell by less

    def chance(speaks: float) -> Any:
        return (first * last[:, below(speaks)]).sum(1)

    total = chance(least)
    possible = total > 0
    loud, where = np.unique(speaks, return_inverse=True)
    each = np.ones(len(loud))
    for i, one in enumerate(loud):
        if one > 1e-9:
            each[i] = min(float((chance(float(one))[possible] / total[possible]).max()), 1.0)
    values: np.ndarray = each[where.ravel()]
    return values


def _named(
    c: np.ndarray,
    n: np.ndarray,
    d: np.ndarray,
    m: np.ndarray,
    able: np.ndarray,
    margin: float,
    level: float,
) -> tuple[tuple[int, ...], int]:
    """Positions of the lost, the surest first, and how many seem lost.

    Who has too few rollouts to be named at all, whatever comes of them, is not tested: the rule
    would pay for it in vain.
    """
    seem = c / n - d / m - margin > 1e-9
    at = np.flatnonzero(seem & able)
    if not at.size:
        return (), int(seem.sum())
    p_values = np.ones(at.size)
    pairs, which = np.unique(np.stack([n[at], m[at]], axis=1), axis=0, return_inverse=True)
    which = which.ravel()
    order = np.argsort(which, kind="stable")
    for (p, q), these in zip(
        pairs.tolist(), np.split(order, np.cumsum(np.bincount(which))[:-1]), strict=True
    ):
        counts = np.stack([c[at[these]], d[at[these]]], axis=1)
        p_values[these] = candidate_p_values(p, q, counts, margin)
    return tuple(int(at[i]) for i in discoveries(p_values.tolist(), level)), int(seem.sum())


@lru_cache(maxsize=256)
def _chances(n: int, margin: float, lower: float) -> tuple[np.ndarray, np.ndarray]:
    """Chances of 0 to n right, and of fewer than 0 to n + 1, at each pass@1 of the grid.

    ``(grid, n + 1)`` and ``(grid, n + 2)``; ``lower`` is taken off the grid, which runs from
    ``margin`` to 1.
    """
    p = np.clip(np.linspace(margin, 1.0, _GRID + 1) - lower, 0.0, 1.0)[:, None]
    k = np.arange(n + 1)
    logs = np.array([lgamma(i + 1) for i in k])
    with np.errstate(divide="ignore", invalid="ignore"):
        exponent = np.where(k > 0, k * np.log(p), 0) + np.where(k < n, (n - k) * np.log1p(-p), 0)
    chance = np.exp(logs[n] - logs - logs[::-1] + exponent)
    return chance, np.concatenate([np.zeros((_GRID + 1, 1)), chance.cumsum(1)], axis=1)


def loss_order(n: int, later: int, margin: float) -> np.ndarray:
    """How loudly each pair of counts speaks of a loss beyond ``margin``; above 0 where it is seen.

    Args:
        n: rollouts at first.
        later: rollouts later.
        margin: 0 to 1.

    Returns:
        ``(n + 1, later + 1)``, never falling with the right rollouts at first, nor rising with
        those later.
    """
    c, d = np.arange(n + 1)[:, None], np.arange(later + 1)[None, :]
    before, after = (c + 0.5) / (n + 1), (d + 0.5) / (later + 1)
    spread = before * (1 - before) / n + after * (1 - after) / later
    order = (c / n - d / later - margin) / np.sqrt(spread)
    # More right at first, or fewer later, never speaks less of a loss: so the largest chance lies
    # where the loss is just the margin.
    order = np.maximum.accumulate(order, axis=0)
    order = np.maximum.accumulate(order[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(order.round(9))


def discoveries(p_values: Sequence[float], level: float) -> list[int]:
    """Benjamini and Hochberg's (1995) step-up rule: positions, the surest first.

    Args:
        p_values: independent of each other.
        level: share of the named that may be wrong on average.
    """
    surest = sorted(range(len(p_values)), key=p_values.__getitem__)
    last = 0
    for rank, i in enumerate(surest, start=1):
        if p_values[i] <= level * rank / len(p_values):
            last = rank
    return surest[:last]
