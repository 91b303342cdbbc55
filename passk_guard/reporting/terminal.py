"""What a user sees of the guard where the host shows progress; elsewhere messages are logged."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from passk_guard.reporting.journal import Journal
from passk_guard.reporting.run_table import run_summary
from passk_guard.reporting.terminal_progress import TerminalProgress
from passk_guard.reporting.watched import Watched

logger = logging.getLogger("passk_guard")


class Terminal:
    """Stderr, between the lines of the host's progress bar.

    Args:
        shows: whether the host shows progress, on this process.

    Attributes:
        progress: for ``PassKGuard(progress=...)``.
    """

    def __init__(self, shows: Callable[[], bool]) -> None:
        self._shows = shows
        self.progress = TerminalProgress(shows)

    def say(self, text: str) -> None:
        """A message."""
        if not self._shows():
            logger.info(text)
            return
        from tqdm.auto import tqdm

        tqdm.write(text, file=sys.stderr)

    def conclude(self, guard: Watched, journal: Journal) -> None:
        """What the guard cost and, where progress is shown, what it saw."""
        if guard.overhead < 0.999:  # else the run goes on elsewhere
            self.say(f"passk-guard: took {100 * guard.overhead:.1f} % of the run's time.")
        if self._shows() and guard.history:
            self.say(run_summary(guard.history, guard.rescores, journal.path))
