"""From evidence to alarm: a leading one on alignment, a sure one on the level of pass@1.

The *alignment* alarm is a one-sided CUSUM (Page 1954) on the sign of ``⟨∇J_train, ∇J_1⟩``, the
update in force. The *level* alarm fires when filtered pass@1 is surely below its reference by more
than the tolerance. Both share the false-alarm chance that the user sets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from passk_guard.detection.cusum import AlignmentCusum, cusum_threshold
from passk_guard.detection.level import level_threshold
from passk_guard.statistics.alignment import Alignment
from passk_guard.statistics.track import Track

__all__ = ["ConflictDetector"]


class ConflictDetector:
    """Both alarms, and the episodes: each kind of alarm is raised once, then it is quiet until the
    whole conflict has cleared. A level alarm after a leading one is news: the loss is real.

    An alignment alarm clears when its CUSUM is back at zero, a level alarm when the estimated
    loss is within the tolerance again.

    Args:
        false_alarms: chance per probe, all alarms together. Alignment gets half; the level of all
            prompts, and of each group, share the other half.
        pass1_tolerance: loss of pass@1 that is no alarm.
        groups: how many groups of prompts have a floor of their own.
    """

    def __init__(self, false_alarms: float, pass1_tolerance: float, groups: int = 0) -> None:
        self.cusum = AlignmentCusum(cusum_threshold(false_alarms / 2))
        self.z = level_threshold(false_alarms / 2 / (1 + groups))
        self.tolerance = pass1_tolerance
        self.active: set[str] = set()
        self._raised: set[str] = set()  # in this episode

    def update(
        self,
        alignment: Alignment | None,
        track: Track,
        groups: Mapping[str, Track] | None = None,
    ) -> tuple[tuple[str, ...], bool]:
        """Take in a probe's evidence.

        Args:
            alignment: of the update in force; ``None`` where there is none.
            track: pass@1 over all prompts.
            groups: pass@1 by group.

        Returns:
            Which kinds of alarm are raised with this probe for the first time in the episode:
            ``"alignment"``, ``"level"``, ``"level of <group>"``; and whether it ended the episode.
        """
        before = bool(self.active)
        score = self.cusum.update(alignment)
        self._set("alignment", on=score > self.cusum.threshold, off=score == 0.0)
        self._level("level", track)
        for label, own in (groups or {}).items():
            self._level(f"level of {label}", own)
        fired = tuple(sorted(self.active - self._raised))
        self._raised = self._raised | self.active if self.active else set()
        return fired, before and not self.active

    def _level(self, name: str, track: Track) -> None:
        sure_loss = track.change + self.z * track.change_se < -self.tolerance
        self._set(name, on=sure_loss, off=track.change >= -self.tolerance)

    def _set(self, name: str, *, on: bool, off: bool) -> None:
        if on:
            self.active.add(name)
        elif off:
            self.active.discard(name)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on after a resume."""
        return {"active": sorted(self.active), "raised": sorted(self._raised)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave: the episode; the CUSUM is restored apart."""
        self.active, self._raised = set(state["active"]), set(state["raised"])

    def forget(self, kind: Callable[[str], bool]) -> None:
        """Close the alarms whose evidence is gone, by name."""
        self.active = {name for name in self.active if not kind(name)}
        self._raised = {name for name in self._raised if not kind(name)} if self.active else set()
