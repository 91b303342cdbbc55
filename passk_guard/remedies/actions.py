"""The door for actions: what is done as an alarm is raised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from typing import Any, Protocol

from passk_guard.errors import reason_of, survived, warn
from passk_guard.look import Look
from passk_guard.objectives.live import LiveObjective
from passk_guard.remedies.remedy import REMEDIES
from passk_guard.runtime.processes import everywhere, world
from passk_guard.runtime.registry import Registry


class Request(StrEnum):
    """What an action asks of the trainer."""

    CHECKPOINT = "checkpoint"
    STOP = "stop"


class ActingGuard(Protocol):
    """What an action sees of the guard; a :class:`~passk_guard.PassKGuard` has more.

    Attributes:
        requests: for the trainer to see to.
        objective: the live one that the run trains on, where there is one.
        is_main: whether this process is the one that warns.
    """

    requests: set[Request]
    objective: LiveObjective | None
    is_main: bool


Action = Callable[[Look, Any], Any]
"""``f(look, guard)``, called on every process with the look that raised the alarm."""

ACTIONS = Registry[Action]("action")


def register_action(name: str, action: Action) -> None:
    """Make ``action=name`` known.

    Raises:
        ValueError: the name is a remedy's, or another action's.
    """
    if name in REMEDIES:
        raise ValueError(f"action={name!r} is a remedy, as built in. Choose another name.")
    ACTIONS.register(name, action)


def run_actions(
    actions: Sequence[str | Action], look: Look, guard: ActingGuard, *, strict: bool = False
) -> None:
    """Run every action on the look that raised an alarm, in order.

    If one raises, that is said, and training goes on.

    Args:
        actions: to run, or their names; remedies, which act at every look, are passed over.
        look: with its alarm.
        guard: that took it.
        strict: raise what an action raises.
    """
    for action in actions:
        if isinstance(action, str) and action in REMEDIES:
            continue
        with survived(strict, partial(_action_failed, action)):
            (ACTIONS[action] if isinstance(action, str) else action)(look, guard)
    _agree(guard)


def _agree(guard: ActingGuard) -> None:
    """An action of the user's own may do one thing here and another on the next process."""
    if world()[1] == 1:
        return
    live = guard.objective
    steered = None if live is None else (live.k, live.pass1_weight)
    told = everywhere(lambda: (guard.requests, steered))
    guard.requests = set().union(*(requests for requests, _ in told))
    if live is not None and told[0][1] is not None:
        live.k, live.pass1_weight = told[0][1]


def _action_failed(action: str | Action, error: Exception) -> None:
    warn(f"the action {action!r} raised {reason_of(error)}")


def _warn(look: Look, guard: ActingGuard) -> None:
    """A :class:`~passk_guard.PassKGuardWarning`; training is never changed."""
    if guard.is_main and look.alarm is not None:
        warn(look.alarm.message)


def _ask(request: Request, look: Look, guard: ActingGuard) -> None:
    guard.requests.add(request)


register_action("warn", _warn)
register_action("checkpoint", partial(_ask, Request.CHECKPOINT))
register_action("stop", partial(_ask, Request.STOP))
