"""pass@k of the reference's prompts, and what is left of what exploration had to offer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from passk_guard.passk import pass_at_k
from passk_guard.statistics.prompt_counts import Counts, PromptCounts


@dataclass(frozen=True)
class PassAtK:
    """pass@k by the rollouts of the last looks together, and since the start.

    A change is taken prompt by prompt, between the rollouts of the start and those of the looks
    alone; it is ``None`` until these are k of each prompt.

    Attributes:
        value: pass@k; with rollouts of the start while the looks have fewer.
        se: its standard error, over prompts.
        change: of pass@k since the start.
        change_se: its standard error, over prompts.
        gap: pass@k less pass@1: what exploration still has to offer.
        gap_at_start: the same at the start.
        above_half: the looks' gap less half of the start's.
        above_half_se: its standard error, over prompts.
    """

    value: float
    se: float
    change: float | None
    change_se: float | None
    gap: float
    gap_at_start: float
    above_half: float | None
    above_half_se: float | None


def pass_at_k_since_start(counts: PromptCounts, weights: np.ndarray, k: int) -> PassAtK:
    """See :class:`PassAtK`.

    Args:
        counts: of ``m`` prompts.
        weights: ``(m,)`` of the prompts.
        k: tries.
    """
    first, gap_at_start = _solved((counts.right, counts.n), k)
    solved, gap = _solved(counts.recent(), k)
    value, se = _mean(solved, weights)
    change = change_se = above = above_se = None
    looks = counts.since_start()
    if (looks[1] >= k).all():
        alone, left = _solved(looks, k)
        change, change_se = _mean(alone - first, weights)
        above, above_se = _mean(left - gap_at_start / 2, weights)
    now, start = (_mean(values, weights)[0] for values in (gap, gap_at_start))
    return PassAtK(value, se, change, change_se, now, start, above, above_se)


def _solved(counts: Counts, k: int) -> tuple[np.ndarray, np.ndarray]:
    """``(m,)`` unbiased pass@k, and less pass@1."""
    right, n = counts
    solved = np.asarray(pass_at_k(right, n, k))
    return solved, solved - right / n


def _mean(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Weighted mean over prompts, and its standard error."""
    shares = weights / weights.sum()
    mean = float(shares @ values)
    m = len(values)
    return mean, math.sqrt(float(shares**2 @ (values - mean) ** 2) * m / (m - 1))
