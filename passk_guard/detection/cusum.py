"""The leading alarm: a one-sided CUSUM (Page 1954) on the sign of ``⟨∇J_train, ∇J_1⟩``.

It tests the update in force.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from passk_guard.detection.detector import DetectorSettings, LookEvidence, register_detector
from passk_guard.runtime.stored import Unfit, maybe, number
from passk_guard.statistics.alignment import Alignment

__all__ = ["AlignmentCusum", "AlignmentDetector", "cusum_threshold"]

_CLIP = 3.0
_ALLOWANCE = 0.5
_VARIANCE_DECAY = 0.15


def cusum_threshold(false_alarms: float) -> float:
    """Threshold h at which a CUSUM with allowance 1/2 has a mean run length 1/false_alarms.

    Siegmund's (1985) approximation: ``2 (e^b - b - 1)`` with ``b = h + 1.166``.

    >>> round(cusum_threshold(5e-4), 2)
    5.75
    """
    run_length = 1.0 / false_alarms
    b = math.log(run_length / 2 + 1)
    for _ in range(50):  # the fixed point of b = log(run_length / 2 + b + 1)
        b = math.log(run_length / 2 + b + 1)
    return max(b - 1.166, 0.5)


class AlignmentCusum:
    """``S ← max(0, S - x - 1/2)``, ``x = clip(U_t / s_{t-1}, ±3)``.

    ``s²`` is an exponential mean of *past* jackknife variances: studentising by the same probe's
    error would tie size and error together and break the run length.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.value = 0.0
        self._variance: float | None = None

    def update(self, alignment: Alignment | None) -> float:
        """Take in a probe; one without signal (``None``) leaves everything as it was."""
        if alignment is None or alignment.jackknife_se <= 0:
            return self.value
        variance = alignment.jackknife_se**2
        scale = math.sqrt(variance if self._variance is None else self._variance)
        x = max(-_CLIP, min(_CLIP, alignment.inner / scale))
        # The ceiling lets an alarm clear within a few probes once the conflict is over.
        self.value = min(max(0.0, self.value - x - _ALLOWANCE), self.threshold + _CLIP)
        past = variance if self._variance is None else self._variance
        self._variance = past + _VARIANCE_DECAY * (variance - past)
        return self.value

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on after a resume."""
        return {"value": self.value, "variance": self._variance}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave.

        Raises:
            Unfit: it is not whole.
        """
        value, variance = number(state, "value", 0), maybe(number, state, "variance", 0)
        if variance == 0:
            raise Unfit("variance must be above 0")
        self.value, self._variance = value, variance


class AlignmentDetector:
    """Opens where the CUSUM is above its threshold, closes where it is back at zero.

    Args:
        settings: as for every detector.
    """

    leading = True

    def __init__(self, settings: DetectorSettings) -> None:
        self.cusum = AlignmentCusum(cusum_threshold(settings.false_alarms))

    def update(self, evidence: LookEvidence) -> dict[str | None, bool | None]:
        """Take in a look."""
        score = self.cusum.update(evidence.update)
        return {None: True if score > self.cusum.threshold else False if score == 0.0 else None}

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on after a resume."""
        return self.cusum.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        self.cusum.load_state_dict(state)


register_detector("alignment", AlignmentDetector)
