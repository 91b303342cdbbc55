"""Episodes of conflict: which alarms are open, and which of them are news."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from passk_guard.detection.alarm import AlarmKind
from passk_guard.detection.detector import DETECTORS, Detector, DetectorSettings, LookEvidence
from passk_guard.runtime.stored import texts
from passk_guard.statistics.alignment import Alignment
from passk_guard.statistics.track import Track

__all__ = ["DEFAULT_DETECTORS", "ConflictDetector"]

DEFAULT_DETECTORS = ("alignment", "level")


class ConflictDetector:
    """All detectors, and the episodes: each kind of alarm is raised once, then it is quiet until
    the whole conflict has cleared. A level alarm after a leading one is news: the loss is real.

    Args:
        false_alarms: chance per look, all alarms together; detectors get equal shares.
        pass1_tolerance: loss of pass@1 that is no alarm.
        groups: how many groups of prompts have a floor of their own.
        names: of the detectors.

    Attributes:
        detectors: by name.
        active: alarms that are open.
        level_z: standard errors at which an alarm on the level fires; ``None`` without one.
    """

    def __init__(
        self,
        false_alarms: float,
        pass1_tolerance: float,
        groups: int = 0,
        names: Sequence[str] = DEFAULT_DETECTORS,
    ) -> None:
        settings = DetectorSettings(false_alarms / len(names), pass1_tolerance, groups)
        self.detectors: dict[str, Detector] = {
            name: DETECTORS.make(name, settings) for name in names
        }
        self.level_z: float | None = getattr(self.detectors.get("level"), "z", None)
        self.active: set[AlarmKind] = set()
        self._raised: set[AlarmKind] = set()  # in this episode

    def update(
        self,
        alignment: Alignment | None,
        track: Track,
        groups: Mapping[str, Track] | None = None,
    ) -> tuple[tuple[AlarmKind, ...], bool]:
        """Take in a look's evidence.

        Args:
            alignment: of the update in force; ``None`` where there is none.
            track: pass@1 over all prompts.
            groups: pass@1 by group.

        Returns:
            Which kinds of alarm are raised with this look for the first time in the episode; and
            whether it ended the episode.
        """
        evidence = LookEvidence(alignment, track, groups or {})
        before = bool(self.active)
        for name, detector in self.detectors.items():
            for group, opened in detector.update(evidence).items():
                kind = AlarmKind(name, group, leading=detector.leading)
                if opened:
                    self.active.add(kind)
                elif opened is False:
                    self.active.discard(kind)
        fired = tuple(sorted(self.active - self._raised))
        self._raised = self._raised | self.active if self.active else set()
        return fired, before and not self.active

    def state_dict(self) -> dict[str, Any]:
        """The episode; detectors keep their own."""
        return {
            "active": sorted(str(kind) for kind in self.active),
            "raised": sorted(str(kind) for kind in self._raised),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave, as far as there are such detectors.

        Raises:
            Unfit: it is not whole.
        """
        active, raised = self._read(state, "active"), self._read(state, "raised")
        self.active, self._raised = active, raised

    def _read(self, state: Mapping[str, Any], key: str) -> set[AlarmKind]:
        leading = {name: detector.leading for name, detector in self.detectors.items()}

        def known(text: str) -> bool:
            return AlarmKind.read(text, {}).detector in DETECTORS

        kinds = (AlarmKind.read(text, leading) for text in texts(state, key, known))
        return {kind for kind in kinds if kind.detector in leading}

    def forget(self, which: Callable[[AlarmKind], bool]) -> None:
        """Close the alarms whose evidence is gone."""
        self.active = {kind for kind in self.active if not which(kind)}
        self._raised = {kind for kind in self._raised if not which(kind)} if self.active else set()
