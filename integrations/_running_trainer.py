"""What no event of a ``transformers.Trainer`` tells, read where its running methods keep it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any


def running_trainer() -> Any:
    """The ``Trainer`` whose ``__init__`` or ``train`` is being run, found on the stack.

    Raises:
        RuntimeError: there is none.
    """
    from transformers import Trainer

    for frame in _frames():
        candidate = frame.f_locals.get("self")
        if isinstance(candidate, Trainer):
            return candidate
    raise RuntimeError(
        "PassKGuardCallback could not find its trainer. Write "
        "trainer.add_callback(PassKGuardCallback(trainer, ...))."
    )


def resumed_folder(trainer: Any) -> Path | None:
    """The checkpoint that a trainer was told to resume from, where it may lie.

    ``None`` where that is not known: another run's state is not to be taken for this one's.
    """
    for frame in _frames():
        seen = frame.f_locals
        if seen.get("self") is trainer and "resume_from_checkpoint" in seen:
            folder = seen["resume_from_checkpoint"]
            return Path(folder) if isinstance(folder, (str, os.PathLike)) else None
    return None


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back
