"""A fault of the guard's own in an event of the run must not end the run."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from passk_guard.config import PassKGuardConfig
from passk_guard.errors import reason_of, survived, warn


class Harmless:
    """Says, once, what went wrong in an event that is marked ``@harmless``."""

    config: PassKGuardConfig
    _complained = False

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            warn(
                "the guard failed (this warning is shown once). Training goes on, possibly "
                f"unguarded: please report it. {reason_of(error)}"
            )


def harmless(event: Callable[..., None]) -> Callable[..., None]:
    """The event, survived by the run; with ``on_error="raise"`` as it is."""

    @wraps(event)
    def handled(self: Any, *args: Any, **kwargs: Any) -> None:
        with survived(self.config.strict, self._complain):
            event(self, *args, **kwargs)

    return handled
