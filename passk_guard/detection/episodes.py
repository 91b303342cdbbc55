"""Episodes of conflict: which alarms are open, and which of them are news."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from passk_guard.detection.alarm import AlarmKind
from passk_guard.detection.cause import Cause, find_cause
from passk_guard.detection.detector import DETECTORS, Detector, DetectorSettings, LookEvidence
from passk_guard.statistics.cosine import Cosine
from passk_guard.statistics.interval import Z95

DEFAULT_DETECTORS = ("alignment", "level")


class ConflictDetector:
    """All detectors, and the episodes: each kind of alarm is raised once, then it is quiet until
    the whole conflict has cleared. A level alarm after a leading one is news: the loss is real. A
    leading one after the level's is none. None opens that its own figures would contradict, for at
    large learning rates pass@1 swings by more than they know: where pass@1 surely rises at present,
    where neither its pace nor the update's inner product is below 0, or where pass@1 is surely
    above its reference and the update does not surely oppose it.

    Args:
        false_alarms: chance per look, all alarms together; detectors get equal shares.
        pass1_tolerance: loss of pass@1 that is no alarm.
        groups: how many groups of prompts have a floor of their own.
        names: of the detectors.
        relative: whether the floor is where the run has been, and no number of the user's.

    Attributes:
        detectors: by name.
        active: alarms that are open.
        cause: of the conflict that is open; once the update is known to oppose pass@1 that stays.
        level_z: standard errors at which an alarm on the level fires; ``None`` without one.
    """

    def __init__(
        self,
        false_alarms: float,
        pass1_tolerance: float,
        groups: int = 0,
        names: Sequence[str] = DEFAULT_DETECTORS,
        *,
        relative: bool = True,
    ) -> None:
        self._relative = relative
        settings = DetectorSettings(false_alarms / len(names), pass1_tolerance, groups)
        self.detectors: dict[str, Detector] = {
            name: DETECTORS.make(name, settings) for name in names
        }
        self.level_z: float | None = getattr(self.detectors.get("level"), "z", None)
        self.active: set[AlarmKind] = set()
        self.cause: Cause | None = None
        self._raised: set[AlarmKind] = set()  # in this episode

    def update(
        self, evidence: LookEvidence, cosine: Cosine | None = None
    ) -> tuple[tuple[AlarmKind, ...], bool]:
        """Take in a look's evidence.

        Args:
            evidence: what it found.
            cosine: of the update in force, as far as it is known.

        Returns:
            Which kinds of alarm are raised with this look for the first time in the episode; and
            whether it ended the episode.
        """
        before = bool(self.active)
        held_back = _contradicted(evidence, cosine)
        for name, detector in self.detectors.items():
            for group, opened in detector.update(evidence).items():
                kind = AlarmKind(name, group, leading=detector.leading)
                if opened:
                    if not (kind.leading and held_back):
                        self.active.add(kind)
                elif opened is False:
                    self.active.discard(kind)
        lost = any(not kind.leading and kind.group is None for kind in self._raised)
        # What leads is no news once the loss is there.
        fired = tuple(sorted(k for k in self.active - self._raised if not (lost and k.leading)))
        self._raised = self._raised | self.active if self.active else set()
        if not self.active:
            self.cause = None
        elif self.cause is not Cause.OPPOSED:  # a remedy that works takes the evidence away
            opposed = getattr(self.detectors.get("alignment"), "opposed_z", None)
            # Of a group's own gradient nothing is known.
            of_all = any(kind.group is None for kind in self.active)
            cause = find_cause(opposed, cosine) if of_all else Cause.UNKNOWN
            # Under a floor that was never reached, nothing need have fallen.
            known = cause is Cause.OPPOSED or self._relative
            self.cause = cause if known else Cause.UNKNOWN
        return fired, before and not self.active

    def state_dict(self) -> dict[str, Any]:
        """The episode; detectors keep their own."""
        return {
            "active": sorted(str(kind) for kind in self.active),
            "raised": sorted(str(kind) for kind in self._raised),
            "cause": None if self.cause is None else str(self.cause),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave, as far as there are such detectors."""
        leading = {name: detector.leading for name, detector in self.detectors.items()}
        self.active, self._raised = (
            {
                kind
                for text in state[key]
                if (kind := AlarmKind.read(text, leading)).detector in leading
            }
            for key in ("active", "raised")
        )
        self.cause = Cause(state["cause"]) if self.active else None

    def forget(self, which: Callable[[AlarmKind], bool]) -> None:
        """Close the alarms whose evidence is gone."""
        self.active = {kind for kind in self.active if not which(kind)}
        self._raised = {kind for kind in self._raised if not which(kind)} if self.active else set()
        self.cause = self.cause if self.active else None


def _contradicted(evidence: LookEvidence, cosine: Cosine | None) -> bool:
    """Whether the figures shown beside a leading alarm speak against it."""
    pace, first = evidence.pace, evidence.first
    if first is not None and first.opposed:
        return False
    if pace is not None and pace.low > 0:
        return True
    track, opposed = evidence.track, cosine is not None and cosine.z < -Z95
    if track.change > Z95 * track.change_se and not opposed:
        return True
    known = [pace.change] if pace is not None else []
    known += [cosine.z] if cosine is not None else []
    return bool(known) and min(known) >= 0
