"""By how much pass@k changed from one checkpoint to another, on the same prompts.

Prompts are far more different from each other than a checkpoint is from the next, so the change is
taken prompt by prompt. Its error is that of the differences alone, whatever makes one prompt harder
than another; two means with an error each, as leaderboards compare them, would need many times the
prompts to show the same change.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from passk_guard.passk import pass_at_k
from passk_guard.statistics.interval import Z95
from passk_guard.statistics.mean_interval import few_tell, mean_intervals

Z80 = 0.8416
"""Standard errors beyond a threshold at which an estimate passes it four times in five."""

_EVERY = 64  # every k up to this, powers of two beyond


@dataclass(frozen=True)
class PassChange:
    """pass@k before and after, over the prompts with at least k rollouts in both.

    Each interval holds with 95 % for the population that these prompts are a sample of.

    Attributes:
        k: tries.
        prompts: that it rests on.
        differing: of these, prompts whose estimate of pass@k differs.
        before: mean of the unbiased estimates in the first file.
        before_low: lower end of its interval.
        before_high: upper end.
        after: mean in the second file.
        after_low: lower end of its interval.
        after_high: upper end.
        change: ``after - before``.
        low: lower end of the interval of the change.
        high: upper end.
        visible: smallest true change that prompts with such a spread show four times in five, as an
            interval without 0; infinity where they could show none.
    """

    k: int
    prompts: int
    differing: int
    before: float
    before_low: float
    before_high: float
    after: float
    after_low: float
    after_high: float
    change: float
    low: float
    high: float
    visible: float


def default_ks(n: Any) -> tuple[int, ...]:
    """Every k that half of the prompts have rollouts for: all up to 64, then powers of two.

    Args:
        n: ``(m,)`` rollouts of each prompt, the fewer of both files.

    >>> default_ks([4, 4, 16])
    (1, 2, 3, 4)
    """
    ordered = np.sort(np.asarray(n))
    largest = int(ordered[len(ordered) // 2])  # as many as half of them, or more, reach it
    ks = list(range(1, min(largest, _EVERY) + 1))
    while ks[-1] >= _EVERY and ks[-1] * 2 <= largest:
        ks.append(ks[-1] * 2)
    return tuple(ks)


def paired_changes(
    before: Any, n_before: Any, after: Any, n_after: Any, ks: Iterable[int]
) -> tuple[PassChange, ...]:
    """Change of pass@k for each k, paired by prompt.

    Args:
        before: ``(m,)`` right rollouts of each prompt in the first file.
        n_before: ``(m,)`` rollouts, or one number.
        after: ``(m,)`` right rollouts of the same prompts in the second file.
        n_after: ``(m,)`` rollouts, or one number.
        ks: each at least 1; some prompt needs that many rollouts in both files.

    Raises:
        ValueError: counts are not whole or beyond n, shapes differ, or no prompt has k rollouts.

    >>> paired_changes([4, 4, 1], 4, [4, 2, 1], 4, [1])[0].change.__round__(4)
    -0.1667
    """
    c, n, d, m = (np.atleast_1d(np.asarray(a)) for a in (before, n_before, after, n_after))
    c, n, d, m = np.broadcast_arrays(c, n, d, m)
    fewest = np.minimum(n, m)
    found: list[PassChange] = []
    used = [(int(k), int((fewest >= k).sum())) for k in ks]
    # As many prompts with k rollouts means the same ones, whose rows can go together.
    for count, these in groupby(used, key=lambda one: one[1]):
        group = [k for k, _ in these]
        if not count:
            raise ValueError(
                f"no prompt has k={group[0]} rollouts in both files, the most is {fewest.max()}. "
                "Ask for a smaller k."
            )
        at = fewest >= max(group)
        first = np.stack([pass_at_k(c[at], n[at], k) for k in group])
        last = np.stack([pass_at_k(d[at], m[at], k) for k in group])
        found += _changes(group, first, last)
    return tuple(found)


def _changes(ks: list[int], first: np.ndarray, last: np.ndarray) -> list[PassChange]:
    """One for each row of ``(ks, prompts)`` values of pass@k."""
    difference = last - first
    of_first, of_last = mean_intervals(first), mean_intervals(last)
    low, high = mean_intervals(difference, -1.0, 1.0)
    visible = visible_change(difference, low, high)
    differing = (np.abs(difference) > 1e-12).sum(1)
    return [
        PassChange(
            k=k,
            prompts=first.shape[1],
            differing=int(differing[i]),
            before=float(first[i].mean()),
            before_low=float(of_first[0][i]),
            before_high=float(of_first[1][i]),
            after=float(last[i].mean()),
            after_low=float(of_last[0][i]),
            after_high=float(of_last[1][i]),
            change=float(difference[i].mean()),
            low=float(low[i]),
            high=float(high[i]),
            visible=float(visible[i]),
        )
        for i, k in enumerate(ks)
    ]


def visible_change(difference: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Smallest true change that is found with a chance of 80 %, at the spread of these differences.

    Half the interval, and .84 standard errors for the chance. Where few prompts differ, a change
    would come of prompts that do not differ yet, and bring its own spread: of a change ``x`` by
    prompts lost wholly, the standard error is ``√((s² + x) / m)``, so that
    ``x² = (1.96 + .84)² (s² + x) / m``.

    Args:
        difference: ``(rows, m)``.
        low: ``(rows,)`` lower ends of the intervals.
        high: ``(rows,)`` upper ends.

    Returns:
        ``(rows,)``, infinity beyond 1.
    """
    m, variance = difference.shape[1], difference.var(1)
    many = (high - low) / 2 + Z80 * np.sqrt(variance / m)
    half = (Z95 + Z80) ** 2 / m / 2
    few = half + np.sqrt(half**2 + 2 * half * variance)
    x = np.where(few_tell(difference), np.maximum(few, many), many)
    return np.where(x < 1, x, math.inf)
