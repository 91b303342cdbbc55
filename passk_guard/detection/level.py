"""The level alarm: pass@1 is surely below its floor by more than the tolerance."""

from __future__ import annotations

from statistics import NormalDist

__all__ = ["level_threshold"]


def level_threshold(false_alarms: float) -> float:
    """Standard errors that a loss must exceed, beyond the tolerance.

    >>> round(level_threshold(5e-4), 2)
    3.29
    """
    return NormalDist().inv_cdf(1.0 - false_alarms)
