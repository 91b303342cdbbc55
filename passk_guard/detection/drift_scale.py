"""The paired drift in units of what it varies by where nothing is wrong."""

from __future__ import annotations

import math

from passk_guard.runtime.stored import Stored
from passk_guard.statistics.track import Drift

# Variance per ten steps of a healthy run's true change, at least; what is shown to be more is more.
_WANDER = 0.002**2
_BACK = 4.0  # tens of steps beyond which it grows no more: a healthy run comes back
_PRIOR_LOOKS = 2.0
_DECAY = 0.95


class DriftScale(Stored):
    """``d = drift / √(its error's variance + the wander's)``.

    The wander is what increments vary by beyond their errors. Half the squared difference of two
    neighbours tells it, whatever the trend: a steady loss must not pass for wandering. Only past
    looks count.
    """

    _stored = ("_wander", "_looks", "_before")

    def __init__(self) -> None:
        self._wander, self._looks = _PRIOR_LOOKS * _WANDER, _PRIOR_LOOKS
        # Of the look before, per ten steps: change, its error's variance, and the wander's share.
        self._before: list[float] | None = None

    def __call__(self, drift: Drift | None, steps: int) -> float | None:
        """The change in units of its scale; ``None`` without one.

        Args:
            drift: since the last look.
            steps: that it took.
        """
        if drift is None or steps <= 0:
            return None
        tens = steps / 10
        spread = min(tens, _BACK)
        wander = max(_WANDER, self._wander / self._looks)
        d = drift.change / math.sqrt(drift.variance + wander * spread)
        now = [drift.change / tens, drift.variance / tens**2, spread / tens**2]
        if self._before is not None:
            change, variance, earlier = self._before
            excess = (now[0] - change) ** 2 - now[1] - variance
            self._wander = _DECAY * self._wander + excess / (now[2] + earlier)
            self._looks = _DECAY * self._looks + 1
        self._before = now
        return d
