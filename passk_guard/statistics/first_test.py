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
from passk_guard.statistics.likelihood import likelihood_root
from passk_guard.statistics.variance import variance_parts

_LEAST, _MANY = 32, 128  # prompts
_STRETCH, _FLOOR = 1.16, 2.9


@dataclass(frozen=True)
class FirstTest:
    """What the reference prompts say of the update, before it has changed anything.

    Attributes:
        inner: ``⟨∇J_train, ∇J_1⟩``, unbiased; its scale is that of the weights.
        z: ``inner`` in standard errors that hold if the truth is 0.
        threshold: ``z`` below its negative is a conflict.
        prompts: that it rests on.
    """

    inner: float
    z: float
    threshold: float
    prompts: int

    @property
    def opposed(self) -> bool:
        """Whether the update surely lowers pass@1."""
        return self.z < -self.threshold


def first_test(gramian: Any, weights: Any, false_alarms: float) -> FirstTest:
    """Test the update in force on the reference prompts, once per run.

    Args:
        gramian: ``(m, m)`` inner products of per-prompt leave-one-out gradients.
        weights: ``(m,)`` prompt weights of the update.
        false_alarms: chance of finding a conflict where there is none.

    Raises:
        ValueError: shapes do not match, fewer than 4 prompts, or no such chance.
    """
    H = symmetric_kernel(gramian, weights)
    inner, z = first_z(H)
    return FirstTest(inner, z, first_threshold(false_alarms, len(H)), len(H))


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
