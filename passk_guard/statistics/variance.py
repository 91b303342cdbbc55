"""Variance of a second-order U-statistic, from the sums that one kernel matrix gives.

With ``U = Σ_{i≠j} H_ij / (m(m-1))``, θ its mean and all indices different (Hoeffding 1948)::

    Var U = [4(m-2) ζ1 + 2 ζ2] / (m(m-1))      ζ1 = E[H_12 H_13] - θ²      ζ2 = E[H_12²] - θ²

Each of the three expectations has an unbiased estimate, θ² being the mean of ``H_ij H_kl``, and
none depends on m: what one batch of prompts tells of them gives the variance at any other size, and
batches can be pooled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class VarianceParts:
    """What the variance of U is made of, whatever the number of prompts.

    Attributes:
        shared: estimate of ``E[H_12 H_13]``.
        square: estimate of ``E[H_12²]``.
        theta2: unbiased estimate of θ²; may be negative.
        m: prompts that they rest on.
    """

    shared: float
    square: float
    theta2: float
    m: int

    def at(self, size: int) -> float:
        """Unbiased estimate of ``Var U`` over ``size >= 2`` prompts; negative by chance at times.

        At the size of the batch that the parts come from it is :func:`unbiased_variance`.

        >>> VarianceParts(shared=2.0, square=5.0, theta2=1.0, m=64).at(4)
        1.3333333333333333
        """
        shared, square = self.shared - self.theta2, self.square - self.theta2
        return (4 * (size - 2) * shared + 2 * square) / (size * (size - 1))

    def jackknife_at(self, size: int) -> float:
        """What the delete-one jackknife would give over ``size >= 3`` prompts: 1 to 2 times Var U.

        At the size of the batch that the parts come from it is that batch's, so never negative.
        """
        shared, square = self.shared - self.theta2, self.square - self.theta2
        return 4 * ((size - 4) * shared + square) / (size * (size - 2))

    def kept_at(self, size: int) -> float:
        """``at(size)``, kept from falling below half the jackknife's, for ``size >= 3``.

        Half the jackknife's is the variance where noise dominates (ζ1 = 0), and not above it
        elsewhere. At more prompts than the parts come from even that can be negative by chance:
        then ζ1 is taken to be 0.
        """
        kept = max(self.at(size), self.jackknife_at(size) / 2)
        if kept > 0:
            return kept
        return max(2 * (self.square - self.theta2) / (size * (size - 1)), 0.0)


def variance_parts(H: np.ndarray, row: np.ndarray | None = None) -> VarianceParts:
    """The parts, from one batch.

    Args:
        H: ``(m, m)`` symmetric kernel, zero diagonal.
        row: ``(m,)`` its row sums, if they are at hand.

    Raises:
        ValueError: fewer than 4 prompts: θ² needs four different ones.
    """
    m = len(H)
    if m < 4:
        raise ValueError(f"H must cover at least 4 prompts, got {m}. Measure more at once.")
    row = H.sum(1) if row is None else row
    S, A, B = float(row.sum()), float((row**2).sum()), float((H**2).sum())
    pairs = m * (m - 1)
    return VarianceParts(
        shared=(A - B) / (pairs * (m - 2)),
        square=B / pairs,
        theta2=(S**2 - 4 * A + 2 * B) / (pairs * (m - 2) * (m - 3)),
        m=m,
    )


def pooled_parts(
    parts: Sequence[VarianceParts], weights: Sequence[float] | None = None
) -> VarianceParts:
    """Weighted mean of several batches' parts; their ``m`` is the number of prompts in all.

    Args:
        parts: one per batch, at least one.
        weights: one per batch, such as ``0.85 ** age``; each is multiplied by the batch's prompts.

    Raises:
        ValueError: no batch, or not one weight for each.
    """
    if not parts:
        raise ValueError("parts is empty: pool those of one batch at least.")
    if weights is not None and len(weights) != len(parts):
        raise ValueError(
            f"weights must have one entry per batch, {len(parts)}, got {len(weights)}."
        )
    shares = np.array([part.m for part in parts], float)
    if weights is not None:
        shares = shares * np.asarray(weights, float)
    values = np.array([(part.shared, part.square, part.theta2) for part in parts])
    shared, square, theta2 = (float(v) for v in shares @ values / shares.sum())
    return VarianceParts(shared, square, theta2, sum(part.m for part in parts))


def unbiased_variance(H: np.ndarray, row: np.ndarray) -> float:
    """Variance of ``U = S / (m(m-1))``: its square less the mean of H_ij H_kl, all different.

    Args:
        H: ``(m, m)`` symmetric kernel, zero diagonal.
        row: ``(m,)`` its row sums.
    """
    return float(u_variance(len(H), row.sum(), (row**2).sum(), (H**2).sum()))


def u_variance(m: int, S: Any, A: Any, B: Any) -> Any:
    """The same from sums, or from arrays of them.

    Args:
        m: prompts, at least 4.
        S: sum of the kernel.
        A: sum of its squared row sums.
        B: sum of its squares.
    """
    pairs = m * (m - 1)
    return (S / pairs) ** 2 - (S**2 - 4 * A + 2 * B) / (pairs * (m - 2) * (m - 3))
