"""One floor under pass@1, of all prompts or of a group, and the λ that it asks for."""

from __future__ import annotations

from passk_guard.remedies.drift_model import DriftModel
from passk_guard.runtime.effort import Effort
from passk_guard.runtime.stored import Stored
from passk_guard.statistics.rollout_store import Drift
from passk_guard.statistics.track import Track

__all__ = ["GuardedFloor"]

_LEAST_TYPICAL = 0.005  # drift per ten steps
_AIM = 0.8  # of the tolerance, below the floor
_HORIZON = 4  # looks, and tens of steps, whichever is longer
_LEAST_GAP = 0.1  # of the typical drift: what b - a counts for at least while nothing is sure
_TRIED, _LOOKS, _SURE = 0.3, 4, 1.645  # λ, looks above it, standard errors
_DOUBT = (
    1.0  # standard errors of b - a: less than the prior's 1.4, which looks that tell little leave
)


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
        if drift is None or not drift.usable or effort.steps <= 0:
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
