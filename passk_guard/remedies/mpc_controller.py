"""Model-predictive control of the share λ of pass@1: it acts on where pass@1 is going."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from passk_guard.remedies.controller import ControlReading, register_controller
from passk_guard.remedies.guarded_floor import GuardedFloor
from passk_guard.runtime.stored import Stored

__all__ = ["PredictiveController"]

_RELEASE = 0.15  # most that λ falls by, per ten steps


class PredictiveController(Stored):
    """The λ with which pass@1 will stand at 0.8 tolerances below its floor in a few looks.

    What pass@1 does at a given λ is learnt from the paired drifts, before the first alarm too, see
    :class:`~passk_guard.remedies.drift_model.DriftModel`. With a and b the drifts of the objective
    alone and of pass@1 alone, and D the change against the floor, λ solves ``D + E ((1-λ) a + λ b)
    = -0.8 tolerance``, where E is the effort of four looks or of forty steps at the largest
    learning rate, whichever is more.

    * Gate: λ is 0 until an alarm, and again once the conflict has cleared and the model wants
      λ = 0, so a healthy run is untouched.
    * λ rises at once, and falls by 0.15 per ten steps at most.
    * A group of prompts has a floor and a model of its own, which bind from its own alarm on, and
      only while b is above a: mixing may well lower it. λ is the largest that is asked for.
    * Where after four looks at λ > 0.3 no λ would do, and b is hardly above a, mixing does not
      help: it lets go until the next alarm after this conflict.

    Args:
        tolerance: how far pass@1 may fall below its floor.
    """

    _stored = ("_value", "_step", "_all", "_groups")

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._all = GuardedFloor(tolerance)
        self._groups: dict[str, GuardedFloor] = {}
        self._value = 0.0
        self._step: int | None = None

    @property
    def value(self) -> float:
        """λ."""
        return self._value

    @property
    def in_vain(self) -> bool:
        """Whether it has let go because mixing does not help."""
        floors = [self._all, *self._groups.values()]
        return any(floor.in_vain for floor in floors) and not any(floor.binds for floor in floors)

    def update(self, reading: ControlReading) -> float:
        """Take in a look; returns the λ to use from here on."""
        # Training that begins anew on the same trainer counts from 0 again.
        steps = 0 if self._step is None else max(reading.step - self._step, 0)
        self._step = reading.step
        labels = {kind.group for kind in reading.conflicts}
        self._all.learn(reading.drift, reading.effort, reading.share)
        spacing = reading.effort.steps
        wanted = self._all.wanted(reading.track, spacing, None in labels)
        for label, track in reading.groups.items():
            floor = self._groups.setdefault(label, GuardedFloor(self._tolerance))
            floor.learn(reading.group_drifts.get(label), reading.effort, reading.share)
            own = floor.wanted(track, spacing, label in labels)
            a, b = floor.model.drifts
            wanted = max(wanted, own if b > a else 0.0)
        self._value = max(wanted, self._value - _RELEASE * steps / 10, 0.0)
        if self._value == 0.0:
            if None not in labels:
                self._all.rest()
            for label, floor in self._groups.items():
                if label not in labels:
                    floor.rest()
        return self._value

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        self._groups = {label: GuardedFloor(self._tolerance) for label in state["groups"]}
        super().load_state_dict(state)


register_controller("mpc", PredictiveController)
