"""Where a look at the policy stands, for whoever wants to show it: a probe can take minutes."""

from __future__ import annotations

import logging
from collections.abc import Callable

from passk_guard.errors import reason_of, survived

logger = logging.getLogger("passk_guard")

Progress = Callable[[str, int, int], None]
"""``progress(stage, done, total)``, called as work goes on, on every process.

``total`` is 0 where a stage is not counted. On several processes the count is of this one's share.
An empty ``stage`` says that the look is over, whether it went well or not.
"""


def silent(stage: str, done: int, total: int) -> None:
    """Shows nothing."""


def harmless(progress: Progress, strict: bool = False) -> Progress:
    """The same, but what it raises is noted and ends the showing, not the look.

    Args:
        progress: shows where a look stands.
        strict: raise it instead.
    """
    failed = False

    def tell(stage: str, done: int, total: int) -> None:
        if not failed:
            with survived(strict, end):
                progress(stage, done, total)

    def end(error: Exception) -> None:
        nonlocal failed
        failed = True
        logger.info("progress is no longer shown: %s", reason_of(error))

    return tell
