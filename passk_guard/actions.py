"""From alarm to action."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from passk_guard.errors import PassKGuardWarning

if TYPE_CHECKING:
    from passk_guard.config import Action
    from passk_guard.guard import PassKGuard
    from passk_guard.probe import Probe, Rescore

__all__ = ["run_actions"]


def run_actions(actions: list[Action], probe: Probe | Rescore, guard: PassKGuard) -> None:
    """Run every action on the probe that raised an alarm, in order.

    ``"warn"`` emits one :class:`PassKGuardWarning` per episode, on the main process, and never
    changes training. A callable gets ``(probe, guard)``, on every process (``guard.is_main`` tells
    which); if it raises, that is said, and training goes on.
    """
    assert probe.alarm is not None
    for action in actions:
        if callable(action):
            try:
                action(probe, guard)
            except Exception as error:
                warn(f"the action {action!r} raised {type(error).__name__}: {error}")
        elif guard.is_main:
            warn(probe.alarm.message)


def warn(message: str) -> None:
    """Emit a :class:`PassKGuardWarning`."""
    warnings.warn(f"passk-guard: {message}", PassKGuardWarning, stacklevel=2)
