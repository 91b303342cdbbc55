"""Model-predictive control of the share λ of pass@1: it acts on where pass@1 is going."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from passk_guard.remedies.controller import ControlReading, register_controller
from passk_guard.remedies.drift_model import DriftModel
from passk_guard.runtime.effort import Effort
from passk_guard.runtime.stored import Stored
from passk_guard.statistics.track import Drift, Track

_RELEASE = 0.15  # most that λ falls by, per ten steps
_LEAST_TYPICAL = 0.005  # drift per ten steps
_AIM = 0.8  # of the tolerance, below the floor
_HORIZON = 4  # looks, and tens of steps, whichever is longer
_LEAST_GAP = 0.1  # of the typical drift: what b - a counts for at least while nothing is sure
_TRIED, _LOOKS, _SURE = 0.3, 4, 1.645  # λ, looks above it, standard errors
_DOUBT = 1.0  # standard errors of b - a; the prior's is 1.4, which looks that tell little leave


class GuardedFloor(Stored):
    """From an alarm until the model wants λ = 0 after it has cleared, this floor binds.

    Args:
        tolerance: how far pass@1 may fall below the floor.

    Attributes:
        binds: whether it asks for anything.
        in_vain: whether mixing was found not to help; until the conflict has cleared.
        model: of the drift.
    """

    _stored = ("binds", "in_vain", "_tried", "_unit", "model")

    def __init__(self, tolerance: float) -> None:
        typical = max(tolerance, _LEAST_TYPICAL)
        self._aim, self._least_gap = -_AIM * tolerance, _LEAST_GAP * typical
        self.model = DriftModel(typical)
        self.binds = self.in_vain = False
        self._unit = 1.0  # tens of steps in which drift is counted: the longest look's, at least 1
        self._tried = 0  # looks in this episode that tell what a good share of λ does

    def learn(self, drift: Drift | None, effort: Effort, share: float) -> None:
        """Take in what pass@1 did under ``share`` since the last look."""
        self.model.scaled(effort.growth)
        if drift is None or effort.steps <= 0:
            return
        # A run with looks far apart is one with long steps: prior and wander are those of a look.
        unit = max(self._unit, effort.steps / 10)
        self.model.scaled(unit / self._unit)
        self._unit = unit
        self.model.learn(share, effort.steps / 10 / unit, drift.change, drift.se**2)
        self._tried += self.binds and share > _TRIED

    def wanted(self, track: Track, spacing: float, conflict: bool) -> float:
        """The λ with which pass@1 gets to the aim in time; 0 while the floor does not bind.

        Args:
            track: pass@1 against the floor.
            spacing: steps of effort between looks.
            conflict: whether an alarm of its own is open.
        """
        if not conflict:
            self.in_vain = False
        if conflict and not self.binds and not self.in_vain:
            self.binds, self._tried = True, 0
        if not self.binds:
            return 0.0
        a, b = self.model.drifts
        needed = (self._aim - track.change) / (_HORIZON * max(spacing / 10, 1.0)) * self._unit
        best = b + _SURE * self.model.b_se
        if self._tried >= _LOOKS and needed > max(a, best) and self.model.z < _DOUBT:
            self.binds, self.in_vain = False, True
            return 0.0
        return min(max((needed - a) / max(b - a, self._least_gap), 0.0), 1.0)

    def rest(self) -> None:
        """Bind no more, until the next alarm."""
        self.binds = False


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
