"""A line in the terminal that says where a look stands, and vanishes with it."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_SECONDS = 0.25  # between two drawings


class TerminalProgress:
    """Shows where a look stands where the host shows progress: for ``PassKGuard(progress=...)``.

    The host's tqdm bars make room and come back. A terminal has room for one live display of rich:
    where the host has one, the line joins it (rich 14.1) or is left out. Nothing is shown without
    rich, or without a terminal. What a verifier prints meanwhile goes where it always goes:
    redirecting ``sys.stdout`` as rich can would mix up pipes and spoil tqdm bars.

    Whatever goes wrong is raised, with the screen in order: see
    :func:`~passk_guard.runtime.progress.harmless`.

    Args:
        wanted: whether the host shows progress.
    """

    def __init__(self, wanted: Callable[[], bool]) -> None:
        self._wanted = wanted
        self._line: Progress | None = None
        self._screen = ExitStack()
        self._drawn = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Say so; an empty stage ends the display."""
        try:
            if stage:
                self._show(stage, done, total)
            else:
                self._clear()
        except BaseException:
            self._clear()
            raise

    def _show(self, stage: str, done: int, total: int) -> None:
        if self._line is None:
            if not self._wanted() or not is_terminal():
                return
            self._line = self._screen.enter_context(_line())
        task, now = self._line.tasks[0], time.monotonic()
        task.description = f"{stage} {done}/{total}" if total else stage
        task.completed, task.total = done, total or None
        if now - self._drawn > _SECONDS:  # within a host's display no thread of rich's does
            self._drawn = now
            self._line.refresh()

    def _clear(self) -> None:
        self._line, self._drawn = None, 0.0
        self._screen.close()


@contextmanager
def _line() -> Iterator[Progress]:
    """A rich display of one line, beside or within whatever the host shows.

    Raises:
        ImportError: rich is missing.
    """
    import_rich()
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with ExitStack() as stack:
        line = Progress(
            SpinnerColumn("line"),
            TextColumn("passk-guard: {task.description}", markup=False),
            BarColumn(20),
            TimeElapsedColumn(),
            console=_hosts_console() or stack.enter_context(_own_console()),
            refresh_per_second=1 / _SECONDS,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        task = line.add_task("", total=None)
        stack.callback(line.stop)
        line.start()
        line.console.show_cursor(True)  # a run that is killed would leave a terminal without
        yield line
        line.remove_task(task)
        line.refresh()  # a host's display goes on without it


def _hosts_console() -> Console | None:
    """Where the host has a live display of rich of its own.

    Raises:
        RuntimeError: it has one that no other can join.
    """
    from rich import get_console
    from rich.file_proxy import FileProxy

    if not isinstance(sys.stdout, FileProxy) and not isinstance(sys.stderr, FileProxy):
        return None
    if not getattr(get_console(), "_live_stack", None):
        raise RuntimeError("the host's rich display has no room")
    return get_console()


@contextmanager
def _own_console() -> Iterator[Console]:
    """On stderr, with the bars of tqdm out of the way."""
    from rich.console import Console
    from tqdm.auto import tqdm

    # A buffer of its own: a process forked meanwhile must not find stderr's locked. tqdm's lock is
    # not held: a verifier may need it on another thread.
    encoding = sys.stderr.encoding
    with (
        tqdm.external_write_mode(file=sys.stderr, nolock=True),
        open(sys.stderr.fileno(), "w", encoding=encoding, errors="replace", closefd=False) as file,
    ):
        yield Console(file=file)


def import_rich() -> None:
    """Import rich without a trace: as it is imported it draws from Python's random generator.

    Raises:
        ImportError: rich is missing.
    """
    state = random.getstate()
    try:
        import rich.progress
        import rich.table  # noqa: F401
    finally:
        random.setstate(state)


def is_terminal() -> bool:
    """Whether stderr is one; in a notebook, in CI and in a log file it is not."""
    return sys.stderr is not None and sys.stderr.isatty()
