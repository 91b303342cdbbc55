"""The package's own warning and error, and what becomes of a fault in a run."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class PassKGuardWarning(UserWarning):
    """A conflict between what is trained and pass@1, or a guard that cannot do its work."""


class ProbeError(RuntimeError):
    """A probe could not be completed. It is lost; training goes on."""


class HalfDone(BaseException):
    """One process failed where all have to go on together: the others wait for it in the middle.

    No fault can be survived there, so this is no :class:`Exception`: it ends the run.
    """


def reason_of(error: BaseException) -> str:
    """Type and text of an error; of one without text the place where it was raised.

    >>> reason_of(ValueError("it failed"))
    'ValueError: it failed'
    """
    name, text = type(error).__name__, str(error).strip()
    if not text and (frames := traceback.extract_tb(error.__traceback__)):
        return f"{name} at {Path(frames[-1].filename).name}:{frames[-1].lineno}"
    return f"{name}: {text}" if text else name


@contextmanager
def survived(strict: bool, otherwise: Callable[[Exception], object]) -> Iterator[None]:
    """Inside the block, an error is handed to ``otherwise`` instead of ending the run.

    Args:
        strict: raise it, which ``on_error="raise"`` asks for.
        otherwise: takes the error, and says what is lost.

    >>> with survived(False, print):
    ...     raise ValueError("it failed")
    it failed
    """
    try:
        yield
    except Exception as error:
        if strict:
            raise
        otherwise(error)


def warn(message: str) -> None:
    """Emit a :class:`PassKGuardWarning`."""
    warnings.warn(f"passk-guard: {message}", PassKGuardWarning, stacklevel=2)
