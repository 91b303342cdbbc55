"""Remedies: what steers the live objective while a conflict is open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from passk_guard.look import Look, Probe
from passk_guard.objectives.live import LiveObjective
from passk_guard.remedies.controller import Controller, ControlReading
from passk_guard.remedies.share_of_k import Counts, ShareOfK
from passk_guard.runtime.effort import EffortMeter
from passk_guard.runtime.stored import Stored


@dataclass(frozen=True)
class Steering:
    """How λ becomes a setting of the live objective.

    Attributes:
        check: refuses, with a ``ValueError``, an objective that cannot be steered like this.
        steer: ``f(objective, k, λ, counts)``, with k as the user chose it, and right and all
            rollouts of the prompts last probed; returns the λ that is truly in force then. λ = 1
            must be pass@1.
    """

    check: Callable[[LiveObjective | None], None]
    steer: Callable[[LiveObjective, float, float, Counts], float]


@dataclass(frozen=True)
class RemedyChange:
    """A remedy sets in, or lets go.

    Attributes:
        how: which remedy.
        on: whether it sets in.
        pass1_weight: λ of the objective from here on.
        k: of the objective from here on.
        in_vain: whether it lets go because it was found not to help.
    """

    how: str
    on: bool
    pass1_weight: float
    k: float
    in_vain: bool = False


class Remedy(Stored):
    """Turns a controller's λ into the live objective's settings, at every look.

    ``"mix"`` makes λ the share of the pass@1 advantages; ``"adjust_k"`` lowers k to the one
    whose prompt weights amount to such a mix. Both let go again when the conflict clears.

    Args:
        how: its name, as in :data:`REMEDIES`.
        objective: live.
        controller: decides on λ.
        optimizer: gives the run's optimizer, whose learning rate tells how far training goes
            between looks; where left out, steps do.

    Raises:
        ValueError: the objective cannot be steered like this.
    """

    # What the controller knows, and what it has to be told at the next look.
    _stored = ("controller", "_share", "_counts", "_effort")

    def __init__(
        self,
        how: str,
        objective: LiveObjective | None,
        controller: Controller,
        optimizer: Callable[[], Any] | None = None,
    ) -> None:
        REMEDIES[how].check(objective)
        assert objective is not None, "every check refuses that"
        self._how, self._objective, self._k = how, objective, objective.k
        self.controller = controller
        self._effort = EffortMeter(optimizer)
        self._share = 0.0  # in force
        self._counts: Counts = []

    def stepped(self, step: int) -> None:
        """``step`` optimizer steps are done."""
        self._effort.stepped(step)

    def update(self, look: Look) -> RemedyChange | None:
        """Take in a look; returns what to say where the remedy sets in or lets go."""
        if isinstance(look, Probe):
            self._counts = list(zip(look.correct, look.scored, strict=True))
        before, in_vain_before = self.controller.value, self._in_vain
        reading = ControlReading(
            step=look.step,
            track=look.track,
            conflicts=look.conflicts,
            drift=look.drift,
            groups=look.groups,
            group_drifts=look.reading.group_drifts,
            share=self._share,
            effort=self._effort.taken(look.step),
        )
        now = self.controller.update(reading)
        self._share = REMEDIES[self._how].steer(self._objective, self._k, now, self._counts)
        gave_up = self._in_vain and not in_vain_before
        if (now > 0.0) == (before > 0.0) and not gave_up:
            return None
        live, on = self._objective, now > 0.0 and not gave_up
        return RemedyChange(self._how, on, live.pass1_weight, live.k, gave_up)

    @property
    def _in_vain(self) -> bool:
        return bool(getattr(self.controller, "in_vain", False))


def _can_mix(objective: LiveObjective | None) -> None:
    if objective is None:
        raise ValueError("action='mix' needs objective=: the live objective that it is mixed into.")


def _mix(objective: LiveObjective, k: float, share: float, counts: Counts) -> float:
    objective.pass1_weight = share
    return share


def _can_adjust_k(objective: LiveObjective | None) -> None:
    if objective is None or not objective.has_k:
        raise ValueError(
            "action='adjust_k' lowers the k of a pass@k objective that the guard has installed. "
            "Pass objective='pkpo' (or 'analytic'), or use action='mix'."
        )


def _adjust_k(objective: LiveObjective, k: float, share: float, counts: Counts) -> float:
    known = ShareOfK.over(objective, k, counts) if share > 0 else None
    if known is None:  # nothing probed yet, or nothing to choose by
        objective.k = k ** (1 - share)
        return share
    objective.k = known.k(share)
    return known.share(objective.k)


REMEDIES = {
    "mix": Steering(_can_mix, _mix),
    "adjust_k": Steering(_can_adjust_k, _adjust_k),
}
