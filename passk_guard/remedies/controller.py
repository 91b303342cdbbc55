"""The door for controllers: from pass@1 against its floor to λ, the share of pass@1."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from passk_guard.detection.alarm import AlarmKind
from passk_guard.runtime.registry import Registry
from passk_guard.statistics.track import Track

__all__ = ["CONTROLLERS", "Controller", "ControllerFactory", "register_controller"]


class Controller(Protocol):
    """Decides how strongly a remedy acts. Until the first alarm it must leave λ at 0."""

    @property
    def value(self) -> float:
        """λ in [0, 1], as of the last update; 0 before the first."""
        ...

    def update(self, track: Track, step: int, conflicts: Sequence[AlarmKind]) -> float:
        """Take in a look.

        Args:
            track: pass@1 against its floor.
            step: optimizer steps done.
            conflicts: alarms that are open.

        Returns:
            The λ to use from here on.
        """
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
