"""A 95 % interval for a U-statistic whose error grows with its value."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["Z95", "interval", "unbiased_variance"]

Z95 = 1.96
"""Standard errors on either side of an estimate that make a 95 % interval, if it is normal."""


def unbiased_variance(H: np.ndarray, row: np.ndarray) -> float:
    """Variance of ``U = S / (m(m-1))``: its square less the mean of H_ij H_kl, all different.

    Args:
        H: ``(m, m)`` symmetric kernel, zero diagonal.
        row: ``(m,)`` its row sums.
    """
    return float(_variance(len(H), row.sum(), (row**2).sum(), (H**2).sum()))


def interval(H: np.ndarray, row: np.ndarray, se: float) -> tuple[float, float]:
    """95 % interval of ``U``, longer on the side on which the truth would make it noisier.

    Where few directions dominate the gradients, U is skewed like a square: when it comes out too
    small, so does its standard error, and ``U ± 1.96 se`` misses the truth in up to 9 % of
    batches. So the variance is taken as a function of the truth θ, ``V(θ) = V + β (θ - U)`` with β
    from a delete-one jackknife of U and V, and the interval is ``(U - θ)² <= z² V(θ)``, as in
    Wilson's (1927) score interval. On the other side it stays at 1.96 standard errors.

    Args:
        H: ``(m, m)`` symmetric kernel, zero diagonal.
        row: ``(m,)`` its row sums.
        se: standard error of U.
    """
    m, n = len(H), len(H) - 1
    value = float(row.sum()) / (m * n)
    if m < 5 or se <= 0:  # without one prompt there are too few left for a variance
        return value - Z95 * se, value + Z95 * se
    squares = (H**2).sum(1)
    S = row.sum() - 2 * row
    A = (row**2).sum() - row**2 - 2 * (H @ row) + squares
    B = squares.sum() - 2 * squares
    without, variance = S / (n * (n - 1)), _variance(n, S, A, B)
    spread = float(((without - without.mean()) ** 2).sum())
    slope = float((without - without.mean()) @ (variance - variance.mean())) / (spread or 1.0)
    shift, half = Z95**2 * slope / 2, math.sqrt((Z95**2 * slope / 2) ** 2 + (Z95 * se) ** 2)
    return (
        min(value - Z95 * se, value + shift - half),
        max(value + Z95 * se, value + shift + half),
    )


def _variance(m: int, S: Any, A: Any, B: Any) -> Any:
    pairs = m * (m - 1)
    return (S / pairs) ** 2 - (S**2 - 4 * A + 2 * B) / (pairs * (m - 2) * (m - 3))
