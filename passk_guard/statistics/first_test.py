"""Does the update oppose pass@1 before training has begun? A test on the reference prompts.

``z = U / √V`` is no normal variable where the truth is 0. Where few directions dominate, U has a
least value, and close to it V vanishes: ``z < -3.1`` came up to 80 times as often as for a normal
variable in simulation. So z is the less extreme of two, both of which look at the noise as it would
be if the truth were 0:

* the score form ``U / √max(V, V - β U)``, β the slope of the variance
  (:func:`~passk_guard.statistics.interval.variance_slope`);
* the root of the empirical likelihood ratio, ``√(jackknife variance / V)`` times as large, since
  the ratio stands on the jackknife's variance, which is up to twice the true one.

What is left of skewness is in the threshold, from simulations of seventeen populations in which
the truth is 0, both gradients vanishing or at a right angle (``tests/helpers/nulls.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from passk_guard.statistics.alignment import symmetric_kernel
from passk_guard.statistics.interval import variance_slope
from passk_guard.statistics.variance import variance_parts

_LEAST, _MANY = 32, 128  # prompts
_STRETCH, _FLOOR = 1.16, 2.9
_ROUNDS, _TOLERANCE = 100, 1e-6


@dataclass(frozen=True)
class FirstTest:
    """The sign of ``⟨∇J_train, ∇J_1⟩``, as far as it is known.

    Attributes:
        inner: ``⟨∇J_train, ∇J_1⟩``, unbiased; its scale is that of the weights.
        z: ``inner`` in standard errors that hold if the truth is 0.
        threshold: size of ``z`` beyond which the sign is sure.
        prompts: number of prompts tested on.
        chance: of the wrong sign where it is called sure.
    """

    inner: float
    z: float
    threshold: float
    prompts: int
    chance: float

    @property
    def opposed(self) -> bool:
        """Whether the step surely lowers pass@1."""
        return self.z < -self.threshold

    @property
    def raises(self) -> bool:
        """Whether the step surely raises pass@1."""
        return self.z > self.threshold

    @property
    def sure(self) -> bool:
        """Whether the sign is known."""
        return self.opposed or self.raises


def first_test(gramian: Any, weights: Any, false_alarms: float) -> FirstTest:
    """Test the sign of a re-weighted objective's inner product with pass@1.

    Args:
        gramian: ``(m, m)`` inner products of per-prompt leave-one-out gradients.
        weights: ``(m,)`` prompt weights of the objective.
        false_alarms: chance of the wrong sign, on either side.

    Raises:
        ValueError: shapes do not match, fewer than 4 prompts, or no such chance.
    """
    H = symmetric_kernel(gramian, weights)
    inner, z = first_z(H)
    return FirstTest(inner, z, first_threshold(false_alarms, len(H)), len(H), false_alarms)


def first_z(H: np.ndarray) -> tuple[float, float]:
    """``U`` and the z of the test; 0 where there is no signal.

    Args:
        H: ``(m, m)`` symmetric kernel, zero diagonal.
    """
    m, row = len(H), H.sum(1)
    inner = float(row.sum()) / (m * (m - 1))
    parts = variance_parts(H, row)
    kept = parts.kept_at(m)
    at_zero = max(kept, kept - variance_slope(H, row) * inner)
    if at_zero <= 0:
        return inner, 0.0
    score = abs(inner) / math.sqrt(at_zero)
    ratio = max(math.sqrt(max(parts.jackknife_at(m), 0.0) / at_zero), 1.0)
    return inner, math.copysign(min(score, ratio * likelihood_root(H)), inner)


def first_threshold(false_alarms: float, m: int) -> float:
    """Size of z beyond which the test finds a conflict: 1.16 times the normal quantile.

    Below 128 prompts 2.9 at least: counts of hard prompts are so small there that z is far from
    normal at 1 % already. In simulation (``tests/benchmarks/first_calibration.py``) at nominal
    1e-2, 1e-3 and 5e-4, over 32 to 512 prompts, no rate is surely above twice the nominal one. Most
    are far below it: what the worst population needs is too much for the others, and where both
    gradients vanish in few directions z has a least value.

    Args:
        false_alarms: chance of finding a conflict where there is none, in a run.
        m: prompts that the test rests on.

    Returns:
        Infinity below 32 prompts, whatever the chance: a kind of prompts that is a third of the
        pool can be missing from so few, and the others' gradients say nothing of it.

    Raises:
        ValueError: not a chance, or not above 0 and below one half.

    >>> round(first_threshold(1e-3, 256), 2)
    3.58
    """
    if not 0 < false_alarms < 0.5:
        raise ValueError(f"false_alarms must lie above 0 and below 0.5, got {false_alarms!r}.")
    if m < _LEAST:
        return math.inf
    return max(-_STRETCH * NormalDist().inv_cdf(false_alarms), _FLOOR if m < _MANY else 0.0)


def likelihood_root(H: np.ndarray) -> float:
    """Root of twice the empirical log-likelihood ratio against ``E[H_12] = 0``.

    The weights ``v`` of prompts that are likeliest among those under which the statistic vanishes::

        maximise Σ log(m v_i)      where Σ v_i = 1 and Σ_{i≠j} v_i v_j H_ij = 0

    The condition is made linear at the weights at hand, as by Wood, Do and Broom 1996: with
    ``h = H v`` and ``ψ_i = 2 h_i - Σ v_j h_j``, the likeliest weights under which ψ has mean zero
    are ``v_i = 1 / (m (1 + λ ψ_i))``; ψ is computed anew at these, and so on. The root
    ``√(-2 Σ log(m v_i))`` is ``|U| / se`` to first order, se the jackknife's (Owen 1988; Jing, Yuan
    and Zhou 2009 for U-statistics). Unlike that, it takes the spread of the gradients from where
    the statistic is zero, and their skewness as it is: so it stays small where U is near the least
    value that it can have, and its standard error vanishes.

    Args:
        H: ``(m, m)`` symmetric kernel, zero diagonal.

    Returns:
        Infinity where no weights are found, as where every prompt pulls the same way.

    >>> bool(likelihood_root(np.eye(4) - 1) == math.inf)
    True
    """
    v = np.full(len(H), 1.0 / len(H))
    h = H @ v
    start = abs(float(v @ h))
    if start == 0:
        return 0.0
    psi = 2 * h - v @ h
    for _ in range(_ROUNDS):
        if not psi.min() < 0 < psi.max():
            return math.inf
        v = _reweighted(psi)
        h = H @ v
        if abs(float(v @ h)) < _TOLERANCE * start:
            return math.sqrt(max(-2.0 * float(np.log(len(H) * v).sum()), 0.0))
        psi = (psi + 2 * h - v @ h) / 2  # damped: a full step may swing from side to side
    return math.inf


def _reweighted(psi: np.ndarray) -> np.ndarray:
    """The likeliest weights under which the mean of ψ is zero; ψ has both signs."""
    m = len(psi)
    # No weight exceeds 1, so 1 + λ ψ_i >= 1/m. In between, Σ ψ/(1 + λ ψ) falls as λ grows.
    low, high = (1 / m - 1) / float(psi.max()), (1 / m - 1) / float(psi.min())
    for _ in range(60):
        middle = (low + high) / 2
        if float((psi / (1 + middle * psi)).sum()) > 0:
            low = middle
        else:
            high = middle
    v = 1 / (1 + (low + high) / 2 * psi)
    return np.asarray(v / v.sum())
