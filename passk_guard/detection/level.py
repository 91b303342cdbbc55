"""The level alarm: pass@1 is surely below its floor by more than the tolerance."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

from passk_guard.detection.detector import DetectorSettings, LookEvidence, register_detector
from passk_guard.statistics.track import Track


def level_threshold(false_alarms: float) -> float:
    """Standard errors that a loss must exceed, beyond the tolerance.

    >>> round(level_threshold(5e-4), 2)
    3.29
    """
    return NormalDist().inv_cdf(1.0 - false_alarms)


class LevelDetector:
    """Closes where the estimated loss is within the tolerance again. It keeps no state.

    Args:
        settings: as for every detector. The level of all prompts, and that of each group, share
            the chance of a false alarm.
    """

    leading = False

    def __init__(self, settings: DetectorSettings) -> None:
        self.z = level_threshold(settings.false_alarms / (1 + settings.groups))
        self._tolerance = settings.pass1_tolerance

    def update(self, evidence: LookEvidence) -> dict[str | None, bool | None]:
        """Take in a look."""
        return {
            None: self._open(evidence.track),
            **{label: self._open(track) for label, track in evidence.groups.items()},
        }

    def _open(self, track: Track) -> bool | None:
        if track.change + self.z * track.change_se < -self._tolerance:
            return True
        return False if track.change >= -self._tolerance else None

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the tracks are kept elsewhere."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to take over."""


register_detector("level", LevelDetector)
