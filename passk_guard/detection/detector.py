"""The door for detectors: from the evidence of a look to alarms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from passk_guard.runtime.registry import Registry
from passk_guard.statistics.alignment import Alignment
from passk_guard.statistics.first_test import FirstTest
from passk_guard.statistics.kept_batches import Foretold
from passk_guard.statistics.pace import Pace
from passk_guard.statistics.track import Drift, Track


@dataclass(frozen=True)
class DetectorSettings:
    """What a detector is told once.

    Attributes:
        false_alarms: its share of the chance of a false alarm per look.
        pass1_tolerance: loss of pass@1 that is no alarm.
        groups: how many groups of prompts have a floor of their own.
    """

    false_alarms: float
    pass1_tolerance: float
    groups: int = 0


@dataclass(frozen=True)
class LookEvidence:
    """What a look has found.

    Attributes:
        update: alignment of the update in force; ``None`` where it was not measured.
        track: pass@1 over all prompts, against its floor.
        groups: the same by group.
        foretold: what ``update.inner`` would be if its true value were 0, from past looks under
            today's weights; ``None`` where there were none.
        drift: change of pass@1 since the last look; ``None`` at the first.
        steps: optimizer steps since the last look.
        first: the test of the reference's gradients, on the look that took them.
        pace: change of pass@1 per ten steps at present, where it is known.
    """

    update: Alignment | None
    track: Track
    groups: Mapping[str, Track]
    foretold: Foretold | None = None
    drift: Drift | None = None
    steps: int = 0
    first: FirstTest | None = None
    pace: Pace | None = None


class Detector(Protocol):
    """Says, look by look, whether a conflict of its kind is open."""

    @property
    def leading(self) -> bool:
        """Whether it speaks of the update that is in force, before pass@1 is lost."""
        ...

    def update(self, evidence: LookEvidence) -> Mapping[str | None, bool | None]:
        """Take in a look.

        Returns:
            By group of prompts, ``None`` being all of them: ``True`` opens the alarm, ``False``
            closes it, ``None`` leaves it as it is.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Plain values, everything needed to go on after a resume."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        ...


DetectorFactory = Callable[[DetectorSettings], Detector]
DETECTORS = Registry[DetectorFactory](
    "detectors", ("leading", "update", "state_dict", "load_state_dict")
)


def register_detector(name: str, factory: DetectorFactory) -> None:
    """Make ``detectors=[..., name]`` known; ``factory(settings)`` is called once for each guard."""
    DETECTORS.register(name, factory)
