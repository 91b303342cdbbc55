"""Cosine of two gradients by profile likelihood, from kept looks: no ratio of noisy things.

The three parts, ``⟨∇J, ∇J_1⟩``, ``‖∇J_1‖²`` and ``‖∇J‖²``, are estimated without bias and are about
normal. Those of any two gradients are ``μ = (ρ s t, s², t²)`` with ``s, t >= 0``, so

    D(ρ) = min over s, t of the Mahalanobis distance of the parts from μ

is twice the drop of the log-likelihood: its smallest point is the estimate, and where it is within
3.84 of that lies the 95 % interval. An estimated norm below zero needs no special case. A
delta-method interval around a clipped ratio contradicts the evidence instead: it shows ``-1.00
[-1.00, +.83]`` beside a sign that is sure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from passk_guard.statistics.alignment import pair_means
from passk_guard.statistics.interval import Z95
from passk_guard.statistics.variance import unbiased_variance

_DROP = 3.84  # of twice the log-likelihood: the 95 % point of χ² with one degree of freedom
_ANGLES, _FINER, _COSINES = 181, 33, 201
_RIDGE = 1e-6  # parts that hang together exactly, such as those of constant weights


@dataclass(frozen=True)
class Cosine:
    """Cosine of the update in force with the pass@1 gradient, and how sure its sign is.

    Attributes:
        value: likeliest one, in [-1, 1].
        low, high: 95 % interval, within [-1, 1]; it ends at 0 where ``z`` is beyond 1.96.
        z: of the inner product, from the same batches: estimate / standard error.
        sized: whether both gradients are surely longer than nothing; if not, the data bound the
            cosine and say little of where in the interval it lies.
    """

    value: float
    low: float
    high: float
    z: float
    sized: bool

    def __str__(self) -> str:
        """As far as it is known: value and interval, a bound, or neither.

        >>> str(Cosine(-0.81, -1.0, -0.34, z=-4.0, sized=False))
        'below -0.34'
        """
        if self.sized:
            return f"{self.value:+z.2f} [{self.low:+z.2f}, {self.high:+z.2f}]"
        if self.z < -Z95:
            return f"below {_bound(self.high)}"
        return f"above {_bound(self.low)}" if self.z > Z95 else "not known"


def _bound(value: float) -> str:
    return f"{value:+.2f}" if abs(value) >= 0.005 else "0"


@dataclass(frozen=True)
class Parts:
    """What a cosine is made of, from one batch or pooled.

    Attributes:
        values: ``(3,)`` inner product, ``‖∇J_1‖²``, ``‖∇J‖²``, unbiased.
        variances: ``(3,)`` of them, unbiased; one batch's may be negative.
        jackknife: ``(3, 3)`` conservative covariance, for the correlations and as a bound.
    """

    values: np.ndarray
    variances: np.ndarray
    jackknife: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """``(3, 3)``: unbiased variances, at least half the jackknife's, and its correlations."""
        diagonal = np.diag(self.jackknife)
        sd = np.sqrt(np.maximum(self.variances, diagonal / 2))
        root = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        scaled: np.ndarray = self.jackknife / np.outer(root, root) * np.outer(sd, sd)
        return scaled


def gradient_parts(kernels: np.ndarray) -> Parts:
    """The parts from one batch, or from the mean of several over the same prompts.

    Args:
        kernels: ``(3, m, m)`` symmetric: ``(W_i + W_j) K_ij / 2``, ``K_ij`` and ``W_i W_j K_ij`` of
            per-prompt gradients' inner products K and prompt weights W, with zero diagonals: see
            :func:`~passk_guard.statistics.alignment.weighted_kernels`.
    """
    rows = kernels.sum(2)
    values, jackknife = pair_means(rows)
    variances = [unbiased_variance(one, row) for one, row in zip(kernels, rows, strict=True)]
    return Parts(values, np.array(variances), jackknife)


def profile_cosine(parts: Parts) -> Cosine:
    """The cosine that the parts speak for, with its interval."""
    covariance = parts.covariance
    sd = np.sqrt(np.diag(covariance))
    if not (sd > 0).all():  # no noise to speak of: fewer than two prompts have a gradient
        return Cosine(0.0, -1.0, 1.0, 0.0, sized=False)
    z = parts.values / sd
    correlation = covariance / np.outer(sd, sd) + _RIDGE * np.eye(3)
    rho = np.linspace(-1.0, 1.0, _COSINES)
    distance = _profile(z, sd, np.linalg.inv(correlation), rho)
    best = float(distance.min())
    inside = rho[distance <= best + _DROP]
    low, high = float(inside.min()), float(inside.max())
    value = float(rho[distance <= best + 1e-9].mean())
    if z[0] < -Z95:
        high = min(high, 0.0)
    elif z[0] > Z95:
        low = max(low, 0.0)
    value = min(max(value, low), high)
    return Cosine(value, low, high, float(z[0]), sized=bool((z[1:] > Z95).all()))


def _profile(z: np.ndarray, sd: np.ndarray, precision: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """``D`` for each cosine, with all parts in units of their standard errors.

    With ``s² = a σ_s sin²φ`` and ``t² = a σ_t cos²φ``, σ being the norms' standard errors, μ is
    ``a v(ρ, φ)`` with ``a >= 0``, the best of which leaves ``zᵀPz - max(0, vᵀPz)² / vᵀPv``. φ is
    searched, and then once more, finely.
    """
    cross = math.sqrt(sd[1] * sd[2]) / sd[0]

    def distance(angle: np.ndarray) -> np.ndarray:
        sine, cosine = np.sin(angle), np.cos(angle)
        direction = np.stack(
            [cross * rho[:, None] * sine * cosine, sine**2, cosine**2], -1
        )  # (cosines, angles, 3)
        along = np.maximum(direction @ (precision @ z), 0)
        found: np.ndarray = z @ precision @ z - along**2 / (direction @ precision * direction).sum(
            -1
        )
        return found

    coarse = np.linspace(0.0, math.pi / 2, _ANGLES)
    near = coarse[distance(np.broadcast_to(coarse, (len(rho), _ANGLES))).argmin(1)]
    step = coarse[1] * np.linspace(-1.0, 1.0, _FINER)
    fine = np.clip(near[:, None] + step, 0.0, math.pi / 2)
    smallest: np.ndarray = distance(fine).min(1)
    return smallest
