"""From the Gramian of per-prompt gradients to the pass@k / pass@1 alignment.

Everything here is a U-statistic over *different* prompts. The cosine of the two averaged gradients
shares each prompt's noise on both sides, which pulls it towards +1 and hides conflict.

With ``K_ij = ⟨ĝ_i, ĝ_j⟩`` over ``m`` prompts and prompt weights ``W_i``::

    ⟨∇J_k, ∇J_1⟩^ = Σ_{i≠j} W_i K_ij / (m(m-1))      ‖∇J_1‖²^ = Σ_{i≠j} K_ij / (m(m-1))
    ‖∇J_k‖²^ = Σ_{i≠j} W_i W_j K_ij / (m(m-1))       a^_i = Σ_{j≠i} K_ij / (m-1)

Source: Barakat et al. 2026 (arXiv 2602.21189) for the agreement and covariance form; Hoeffding
1948 for U-statistics; the unbiased variance is the one of a second-order U-statistic, and the
jackknife that of Efron and Stein 1981, which is conservative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from passk_guard.passk import binomial_ratio, unbiased_prompt_weight
from passk_guard.statistics.interval import interval
from passk_guard.statistics.variance import unbiased_variance


@dataclass(frozen=True)
class Alignment:
    """How far a re-weighted objective's gradient points along the pass@1 gradient.

    Attributes:
        k: the objective's k; ``None`` for weights that belong to no single k.
        inner: ``⟨∇J, ∇J_1⟩``, unbiased; negative means that the step lowers pass@1.
        se: standard error of ``inner``, from the unbiased variance, which is kept from falling
            below half the jackknife's.
        low, high: 95 % interval of ``inner``; longer than 1.96 ``se`` on the side on which the
            error would be larger, see :func:`~passk_guard.statistics.interval.interval`.
        z: ``inner / se``; 0 when there is no signal.
        cosine: from debiased norms, clipped to [-1, 1]; ``None`` where a squared norm's estimate
            is not positive.
        pass1_norm2: ``‖∇J_1‖²``, unbiased, may be negative.
        passk_norm2: ``‖∇J‖²`` of the weighted objective, unbiased, may be negative.
        agreement: ``(m,)``, each prompt's ``a(x) = ⟨g(x), ∇J_1⟩``; its mean is ``pass1_norm2``.
        covariance: ``Cov(w, a)``, so that ``inner ≈ E[w] · pass1_norm2 + covariance``.
        jackknife_se: conservative standard error of ``inner``.
        jackknife_cov: ``(3, 3)`` jackknife covariance of (inner, pass1_norm2, passk_norm2).
    """

    k: int | None
    inner: float
    se: float
    low: float
    high: float
    z: float
    cosine: float | None
    pass1_norm2: float
    passk_norm2: float
    agreement: np.ndarray = field(repr=False)
    covariance: float
    jackknife_se: float = field(repr=False)
    jackknife_cov: np.ndarray = field(repr=False)


def estimate_alignment(gramian: Any, correct: Any, n: Any, k: int) -> Alignment:
    """Alignment of the pass@k gradient with the pass@1 gradient, from one batch of prompts.

    Args:
        gramian: ``(m, m)`` inner products of per-prompt leave-one-out gradients ĝ. Its diagonal is
            ignored. Rows of prompts whose rollouts are all right or all wrong are zero.
        correct: ``(m,)`` right rollouts per prompt.
        n: rollouts per prompt, an int or ``(m,)``.
        k: ``1 <= k <= n-1``.

    Raises:
        ValueError: shapes do not match, fewer than 4 prompts, or ``k`` or a count out of range.

    >>> import numpy as np
    >>> kernel = np.array([[0, 1, -2, 1], [1, 0, -2, 1], [-2, -2, 0, -2], [1, 1, -2, 0.0]])
    >>> estimate_alignment(kernel, correct=[7, 7, 1, 7], n=8, k=4).inner  # the hard one disagrees
    -2.0
    """
    matrix = _square(gramian)
    counts = _vector(correct, len(matrix), "correct")
    totals = _vector(n, len(matrix), "n")
    weights = np.asarray(unbiased_prompt_weight(counts, totals, k))
    mean_weight = float(np.mean(k * binomial_ratio(totals - counts, totals, k - 1)))
    return _estimate(matrix, weights, k, mean_weight)


def alignment_curve(
    gramian: Any, correct: Any, n: Any, ks: list[int] | None = None
) -> list[Alignment]:
    """The alignment for every k, from one Gramian; arguments as in :func:`estimate_alignment`.

    Args:
        gramian: ``(m, m)``.
        correct: ``(m,)``.
        n: an int or ``(m,)``.
        ks: which k; by default 1 to the smallest ``n`` less 1.
    """
    if ks is None:
        ks = list(range(1, int(np.min(np.asarray(_to_numpy(n))))))
    return [estimate_alignment(gramian, correct, n, k) for k in ks]


def weighted_alignment(gramian: Any, weights: Any, k: int | None = None) -> Alignment:
    """Alignment of any prompt-weighted objective, such as the one in force, with pass@1.

    Args:
        gramian: ``(m, m)`` as in :func:`estimate_alignment`.
        weights: ``(m,)`` prompt weights ``W_i``; their scale is the scale of ``inner``.
        k: recorded in the answer.
    """
    matrix = _square(gramian)
    vector = _vector(weights, len(matrix), "weights")
    return _estimate(matrix, vector, k, float(np.mean(vector)))


def symmetric_kernel(gramian: Any, weights: Any) -> np.ndarray:
    """``H_ij = (W_i + W_j) K_ij / 2``, zero diagonal: the mean over pairs is ``⟨∇J, ∇J_1⟩``.

    Args:
        gramian: ``(m, m)`` as in :func:`estimate_alignment`.
        weights: ``(m,)`` prompt weights ``W_i``.

    Raises:
        ValueError: shapes do not match, or fewer than 4 prompts.
    """
    matrix = _square(gramian)
    vector = _vector(weights, len(matrix), "weights")
    H = 0.5 * (vector[:, None] + vector[None, :]) * matrix
    np.fill_diagonal(H, 0.0)
    return np.asarray(H)


def weighted_kernels(K: np.ndarray, W: np.ndarray) -> np.ndarray:
    """``(3, m, m)`` kernels whose means over pairs are ⟨∇J, ∇J_1⟩, ‖∇J_1‖² and ‖∇J‖².

    Args:
        K: ``(m, m)`` inner products of per-prompt gradients.
        W: ``(m,)`` prompt weights.
    """
    kernels = np.stack([0.5 * (W[:, None] + W[None, :]) * K, K, W[:, None] * W[None, :] * K])
    kernels[:, range(len(K)), range(len(K))] = 0.0
    return kernels


def pair_means(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(s,)`` means over pairs of symmetric kernels, and their ``(s, s)`` jackknife covariance.

    Args:
        rows: ``(s, m)`` row sums of each, diagonals left out.
    """
    m, totals = rows.shape[1], rows.sum(1)
    leave_one_out = (totals[:, None] - 2 * rows) / ((m - 1) * (m - 2))
    centred = leave_one_out - leave_one_out.mean(1, keepdims=True)
    return totals / (m * (m - 1)), (m - 1) / m * centred @ centred.T


def _estimate(K: np.ndarray, W: np.ndarray, k: int | None, mean_weight: float) -> Alignment:
    m, kernels = len(K), weighted_kernels(K, W)
    rows = kernels.sum(2)  # (3, m)
    means, jackknife_cov = pair_means(rows)
    inner, pass1_norm2, passk_norm2 = (float(v) for v in means)
    jackknife_se = math.sqrt(jackknife_cov[0, 0])
    # The jackknife's variance is between 1 and 2 times the true one, 2 where noise dominates; the
    # unbiased form can fall below that by chance, even below zero.
    variance = max(unbiased_variance(kernels[0], rows[0]), jackknife_cov[0, 0] / 2)
    se = math.sqrt(variance)
    low, high = interval(kernels[0], rows[0], se)

    covariance = m / (m - 2) * (inner - mean_weight * pass1_norm2)
    return Alignment(
        k=k,
        inner=inner,
        se=se,
        low=low,
        high=high,
        z=inner / se if se > 0 else 0.0,
        cosine=debiased_cosine(inner, pass1_norm2, passk_norm2),
        pass1_norm2=pass1_norm2,
        passk_norm2=passk_norm2,
        agreement=rows[1] / (m - 1),
        covariance=covariance,
        jackknife_se=jackknife_se,
        jackknife_cov=jackknife_cov,
    )


def debiased_cosine(inner: float, pass1_norm2: float, passk_norm2: float) -> float | None:
    """Cosine from unbiased parts; ``None`` where a squared norm is not positive."""
    if pass1_norm2 <= 0 or passk_norm2 <= 0:
        return None
    cosine = inner / math.sqrt(pass1_norm2) / math.sqrt(passk_norm2)
    return max(-1.0, min(1.0, cosine))


def _to_numpy(values: Any) -> Any:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values


def _square(gramian: Any) -> np.ndarray:
    matrix = np.asarray(_to_numpy(gramian), dtype=float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"gramian must be square, (m, m), got shape {matrix.shape}.")
    if len(matrix) < 4:
        raise ValueError(f"gramian must cover at least 4 prompts, got {len(matrix)}.")
    if not np.isfinite(matrix).all():
        raise ValueError("gramian holds NaN or infinity: a gradient of the policy is not finite.")
    return matrix


def _vector(values: Any, m: int, name: str) -> np.ndarray:
    vector = np.asarray(_to_numpy(values), dtype=float)
    if vector.ndim == 0:
        vector = np.full(m, float(vector))
    if vector.shape != (m,):
        raise ValueError(f"{name} must have one entry per prompt, ({m},), got {vector.shape}.")
    return vector
