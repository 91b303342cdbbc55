"""A pooled cosine with an interval: one probe's ratio of noisy things is too noisy to show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from passk_guard.runtime.stored import matrix, number
from passk_guard.statistics.alignment import Alignment, debiased_cosine
from passk_guard.statistics.interval import Z95

__all__ = ["Cosine", "PooledCosine"]

_DECAY = 0.85  # an effective memory of about seven probes


@dataclass(frozen=True)
class Cosine:
    """Cosine of two gradients with its 95 % interval, both within [-1, 1]."""

    value: float
    low: float
    high: float


class PooledCosine:
    """Numerator and both squared norms, pooled over probes with exponential weights.

    The ratio is taken of the pooled parts; its standard error is the delta method's on their
    pooled jackknife covariance. While the norms are noisy the value's size is overstated; the
    interval then is wide.
    """

    def __init__(self) -> None:
        self._parts = np.zeros(3)
        self._cov = np.zeros((3, 3))
        self._weight = 0.0

    def update(self, alignment: Alignment) -> Cosine | None:
        """Pool one more probe; ``None`` while a pooled squared norm is not positive."""
        parts = [alignment.inner, alignment.pass1_norm2, alignment.passk_norm2]
        self._parts = _DECAY * self._parts + np.array(parts)
        self._cov = _DECAY**2 * self._cov + alignment.jackknife_cov
        self._weight = _DECAY * self._weight + 1.0
        return self.now()

    def now(self) -> Cosine | None:
        """The pooled cosine as of the last probe."""
        if not self._weight:
            return None
        inner, norm1, normk = (float(part) for part in self._parts / self._weight)
        value = debiased_cosine(inner, norm1, normk)
        if value is None:
            return None
        scale = math.sqrt(norm1 * normk)
        slope = np.array([1.0, -inner / (2 * norm1), -inner / (2 * normk)]) / scale
        half = Z95 * math.sqrt(max(float(slope @ self._cov @ slope), 0.0)) / self._weight
        return Cosine(value, max(-1.0, value - half), min(1.0, value + half))

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on after a resume."""
        return {
            "parts": self._parts.tolist(),
            "cov": self._cov.tolist(),
            "weight": self._weight,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave.

        Raises:
            Unfit: it is not whole; nothing is taken over.
        """
        parts, cov = matrix(state, "parts", 3), matrix(state, "cov", 3, 3)
        self._parts, self._cov, self._weight = parts, cov, number(state, "weight", 0)
