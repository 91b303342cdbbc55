"""Remedies: what steers the live objective while a conflict is open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from passk_guard.detection.cause import Cause
from passk_guard.look import Look
from passk_guard.objectives.live import LiveObjective
from passk_guard.remedies.controller import Controller

__all__ = ["REMEDIES", "Remedy", "RemedyChange", "Steering"]


@dataclass(frozen=True)
class Steering:
    """How λ becomes a setting of the live objective.

    Attributes:
        check: refuses, with a ``ValueError``, an objective that cannot be steered like this.
        steer: ``f(objective, k, λ)``, with k as the user chose it. λ = 1 must be pass@1.
    """

    check: Callable[[LiveObjective | None], None]
    steer: Callable[[LiveObjective, float, float], None]


@dataclass(frozen=True)
class RemedyChange:
    """A remedy sets in, or lets go.

    Attributes:
        how: which remedy.
        on: whether it sets in.
        pass1_weight: λ of the objective from here on.
        k: of the objective from here on.
    """

    how: str
    on: bool
    pass1_weight: float
    k: float


class Remedy:
    """Turns a controller's λ into the live objective's settings, at every look.

    ``"mix"`` makes λ the share of the pass@1 advantages; ``"adjust_k"`` lowers k to ``k^(1-λ)``.
    Both let go again when the conflict clears.

    Args:
        how: its name, as in :data:`REMEDIES`.
        objective: live.
        controller: decides on λ.

    Raises:
        ValueError: the objective cannot be steered like this.
    """

    def __init__(self, how: str, objective: LiveObjective | None, controller: Controller) -> None:
        REMEDIES[how].check(objective)
        assert objective is not None, "every check refuses that"
        self._how, self._objective, self._k = how, objective, objective.k
        self.controller = controller

    def update(self, look: Look) -> RemedyChange | None:
        """Take in a look; returns what to say where the remedy sets in or lets go."""
        before = self.controller.value
        # Where the update does not oppose pass@1 there is nothing to mix against.
        conflicts = () if look.cause is Cause.FALLING else look.conflicts
        now = self.controller.update(look.track, look.step, conflicts)
        REMEDIES[self._how].steer(self._objective, self._k, now)
        if (now > 0.0) == (before > 0.0):
            return None
        live = self._objective
        return RemedyChange(self._how, now > 0.0, live.pass1_weight, live.k)


def _can_mix(objective: LiveObjective | None) -> None:
    if objective is None:
        raise ValueError("action='mix' needs objective=: the live objective that it is mixed into.")


def _mix(objective: LiveObjective, k: float, share: float) -> None:
    objective.pass1_weight = share


def _can_adjust_k(objective: LiveObjective | None) -> None:
    if objective is None or not objective.has_k:
        raise ValueError(
            "action='adjust_k' lowers the k of a pass@k objective that the guard has installed. "
            "Pass objective='pkpo' (or 'analytic'), or use action='mix'."
        )


def _adjust_k(objective: LiveObjective, k: float, share: float) -> None:
    objective.k = k ** (1 - share)


REMEDIES = {
    "mix": Steering(_can_mix, _mix),
    "adjust_k": Steering(_can_adjust_k, _adjust_k),
}
