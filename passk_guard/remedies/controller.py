"""The door for controllers: from pass@1 against its floor to λ, the share of pass@1."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from passk_guard.detection.alarm import AlarmKind
from passk_guard.runtime.effort import Effort
from passk_guard.runtime.registry import Registry
from passk_guard.statistics.track import Drift, Track

_NONE_YET = Effort(0.0)


@dataclass(frozen=True)
class ControlReading:
    """What a controller is told at each look.

    Attributes:
        step: optimizer steps done.
        track: pass@1 against its floor.
        conflicts: alarms that are open and call for a remedy.
        drift: change of pass@1 since the last look; ``None`` at the first.
        groups: pass@1 against its floor by group of prompts, with ``group_by``.
        group_drifts: changes by group.
        share: λ that was truly in force since the last look.
        effort: what training has done since then.
    """

    step: int
    track: Track
    conflicts: Sequence[AlarmKind] = ()
    drift: Drift | None = None
    groups: Mapping[str, Track] = field(default_factory=dict)
    group_drifts: Mapping[str, Drift] = field(default_factory=dict)
    share: float = 0.0
    effort: Effort = _NONE_YET


class Controller(Protocol):
    """Decides how strongly a remedy acts. Until the first alarm it must leave λ at 0.

    An optional attribute ``in_vain`` says whether it has let go because the remedy does not help.
    """

    @property
    def value(self) -> float:
        """λ in [0, 1], as of the last update; 0 before the first."""
        ...

    def update(self, reading: ControlReading) -> float:
        """Take in a look; returns the λ to use from here on."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Plain values, everything needed to go on after a resume."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        ...


ControllerFactory = Callable[[float], Controller]
CONTROLLERS = Registry[ControllerFactory](
    "controller", ("value", "update", "state_dict", "load_state_dict")
)


def register_controller(name: str, factory: ControllerFactory) -> None:
    """Make ``controller=name`` known; ``factory(tolerance)`` is called once for each guard."""
    CONTROLLERS.register(name, factory)
