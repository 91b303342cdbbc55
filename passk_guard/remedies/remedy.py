"""Remedies: what steers the live objective while a conflict is open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from passk_guard.objectives.estimators import ESTIMATORS
from passk_guard.objectives.live import LiveObjective
from passk_guard.objectives.passk_objective import PassKObjective
from passk_guard.remedies.floor_controller import FloorController

if TYPE_CHECKING:
    from passk_guard.config import Action
    from passk_guard.look import Probe, Rescore

__all__ = ["Remedy", "check_remedy", "load_remedy", "remedy_state"]


class Remedy:
    """``"mix"`` or ``"adjust_k"``: turns the controller's λ into the live objective's settings.

    ``"mix"`` makes λ the share of the pass@1 advantages; ``"adjust_k"`` lowers k to ``k^(1-λ)``,
    so that λ = 1 is pass@1, too. Both let go again when the conflict clears.

    Args:
        how: which.
        objective: live.
        tolerance: how far pass@1 may fall below its floor.
    """

    def __init__(self, how: str, objective: LiveObjective, tolerance: float) -> None:
        self._how, self._objective, self._k = how, objective, objective.k
        self.controller = FloorController(tolerance)

    def update(self, found: Probe | Rescore) -> str | None:
        """Take in a look; returns what to say where the remedy sets in or lets go."""
        before = self.controller.value
        now = self.controller.update(found.track, found.step, found.conflicts)
        if self._how == "mix":
            self._objective.pass1_weight = now
            what = f"mixing pass@1 back in, λ = {now:.2f}"
        else:
            self._objective.k = self._k ** (1 - now)
            what = f"lowering k to {self._objective.k:.2f}"
        if now > 0.0 == before:
            return what
        return "the remedy is off again" if before > 0.0 == now else None


def remedy_state(objective: LiveObjective | None, remedy: Remedy | None) -> dict[str, Any]:
    """k, λ and what the controller knows, for a checkpoint."""
    return {
        "objective": None if objective is None else objective.state_dict(),
        "controller": None if remedy is None else remedy.controller.state_dict(),
    }


def load_remedy(
    objective: LiveObjective | None, remedy: Remedy | None, state: Mapping[str, Any]
) -> None:
    """Take over what :func:`remedy_state` gave, as far as there is something to take it."""
    if objective is not None and state["objective"] is not None:
        objective.load_state_dict(state["objective"])
    if remedy is not None and state["controller"] is not None:
        remedy.controller.load_state_dict(state["controller"])


def check_remedy(actions: list[Action], objective: LiveObjective | None) -> str | None:
    """Which remedy the actions ask for, if any.

    Raises:
        ValueError: the objective does not allow it.
    """
    wanted = [action for action in actions if action in ("mix", "adjust_k")]
    if not wanted:
        return None
    how = str(wanted[0])
    if how == "mix" and objective is None:
        raise ValueError("action='mix' needs objective=: the live objective that it is mixed into.")
    if how == "adjust_k" and not (
        isinstance(objective, PassKObjective) and ESTIMATORS[objective.estimator].has_k
    ):
        raise ValueError(
            "action='adjust_k' lowers the k of a pass@k objective that the guard has installed. "
            "Pass objective='pkpo' (or 'analytic'), or use action='mix'."
        )
    return how
