"""From alarm to action."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from passk_guard.errors import survived
from passk_guard.runtime.processes import everywhere, world

if TYPE_CHECKING:
    from passk_guard.config import Action
    from passk_guard.guard import PassKGuard
    from passk_guard.look import Probe, Rescore
from passk_guard.errors import warn

__all__ = ["run_actions"]


def run_actions(actions: list[Action], probe: Probe | Rescore, guard: PassKGuard) -> None:
    """Run every action on the probe that raised an alarm, in order.

    ``"warn"`` emits a :class:`PassKGuardWarning`, on the main process, and never changes training.
    ``"checkpoint"`` and ``"stop"`` are left in ``guard.requests`` for the
    trainer. A callable gets ``(probe, guard)``, on every process (``guard.is_main`` tells which);
    if it raises, that is said, and training goes on. ``"mix"`` and ``"adjust_k"`` work at every
    look, not at the alarm only: see :class:`Remedy`.
    """
    assert probe.alarm is not None
    for action in actions:
        if callable(action):
            with survived(guard.config.strict, partial(_action_failed, action)):
                action(probe, guard)
        elif action in ("checkpoint", "stop"):
            guard.requests.add(action)
        elif action == "warn" and guard.is_main:
            warn(probe.alarm.message)
    _agree(guard)


def _agree(guard: PassKGuard) -> None:
    """An action of the user's own may do one thing here and another on the next process."""
    if world()[1] == 1:
        return
    told = everywhere(lambda: (guard.requests, guard.k, guard.pass1_weight))
    guard.requests = set().union(*(requests for requests, _, _ in told))
    if guard.objective is not None:
        _, guard.objective.k, guard.objective.pass1_weight = told[0]


def _action_failed(action: Action, error: Exception) -> None:
    warn(f"the action {action!r} raised {type(error).__name__}: {error}")
