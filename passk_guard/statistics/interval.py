"""A 95 % interval for a U-statistic whose error grows with its value."""

from __future__ import annotations

import math

import numpy as np

from passk_guard.statistics.variance import u_variance

Z95 = 1.96
"""Standard errors on either side of an estimate that make a 95 % interval, if it is normal."""


def variance_slope(H: np.ndarray, row: np.ndarray) -> float:
    """By how much the variance V of ``U`` grows where U does: β of ``V(θ) = V + β (θ - U)``.

    Where few directions dominate the gradients, U is skewed like a square: when it comes out too
    small, so does its standard error. β is from a delete-one jackknife of U and V.

    Args:
        H: ``(m, m)`` symmetric kernel, zero diagonal.
        row: ``(m,)`` its row sums.

    Returns:
        0 where there are fewer than 5 prompts: without one there are too few left for a variance.
    """
    m, n = len(H), len(H) - 1
    if m < 5:
        return 0.0
    squares = (H**2).sum(1)
    S = row.sum() - 2 * row
    A = (row**2).sum() - row**2 - 2 * (H @ row) + squares
    B = squares.sum() - 2 * squares
    without, variance = S / (n * (n - 1)), u_variance(n, S, A, B)
    centred = without - without.mean()
    return float(centred @ (variance - variance.mean())) / (float((centred**2).sum()) or 1.0)


def interval(H: np.ndarray, row: np.ndarray, se: float) -> tuple[float, float]:
    """95 % interval of ``U``, longer on the side on which the truth would make it noisier.

    ``U ± 1.96 se`` misses the truth in up to 9 % of batches where few directions dominate (see
    :func:`variance_slope`). So the variance is taken as a function of the truth θ, and the
    interval is ``(U - θ)² <= z² V(θ)``, as in Wilson's (1927) score interval. On the other side it
    stays at 1.96 standard errors.

    Args:
        H: ``(m, m)`` symmetric kernel, zero diagonal.
        row: ``(m,)`` its row sums.
        se: standard error of U.
    """
    m = len(H)
    value = float(row.sum()) / (m * (m - 1))
    if m < 5 or se <= 0:
        return value - Z95 * se, value + Z95 * se
    slope = variance_slope(H, row)
    shift, half = Z95**2 * slope / 2, math.sqrt((Z95**2 * slope / 2) ** 2 + (Z95 * se) ** 2)
    return (
        min(value - Z95 * se, value + shift - half),
        max(value + Z95 * se, value + shift + half),
    )
