"""A progress bar with the time that is left, for work that a user waits for."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from passk_guard.reporting.terminal_progress import is_terminal
from passk_guard.runtime.processes import world
from passk_guard.runtime.progress import Progress, harmless, silent


class ProgressBar:
    """A bar of tqdm for each stage of the work.

    Args:
        bar: ``tqdm.auto.tqdm``, or anything that is called alike.
    """

    def __init__(self, bar: Any) -> None:
        self._make, self._stage = bar, ""
        self._bar: Any = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Say where it stands; an empty stage, or one that is not counted, ends the showing."""
        if self._bar is not None and (stage != self._stage or self._bar.total != total):
            self._bar.update(self._bar.total - self._bar.n)  # the next stage has begun
            self.close()
        if stage and total:
            if self._bar is None:
                self._bar, self._stage = self._make(total=total, desc=stage, initial=done), stage
            self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """End the bar that is there, as it stands."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None


@contextmanager
def shown(progress: Progress | None) -> Iterator[Progress]:
    """The user's own, or a bar where somebody looks and tqdm is there, or nothing."""
    if progress is not None:
        yield harmless(progress)
        return
    bar = _bar() if world()[0] == 0 and (is_terminal() or _is_notebook()) else None
    tell = silent if bar is None else harmless(bar)
    try:
        yield tell
        tell("", 0, 0)
    finally:
        if bar is not None:
            bar.close()


def _bar() -> ProgressBar | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tqdm's, where a notebook has no widgets
            from tqdm.auto import tqdm
    except ImportError:
        return None
    return ProgressBar(tqdm)


def _is_notebook() -> bool:
    return "ipykernel" in sys.modules
