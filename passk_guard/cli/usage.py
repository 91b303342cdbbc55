"""Exit statuses that a script can rely on, and the parser that keeps to them."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any, NoReturn

from passk_guard.errors import PassKGuardWarning, reason_of

__all__ = ["BAD_INPUT", "INTERRUPTED", "Parser", "as_far_as_read", "complain", "told"]

BAD_INPUT = 3
"""Bad input or usage. 0, 1 and 2 are answers of ``passk-guard compare``."""
INTERRUPTED = 130
"""Ctrl-C, as a shell has it."""

_SAID_IN_A_SENTENCE = (ValueError, OSError, ImportError, RuntimeError)
_FRAMES = -3  # of a verifier's traceback: the last ones are its own


class Parser(argparse.ArgumentParser):
    """Argparse's own status for bad usage is 2, which is an answer here."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end."""
        self.print_usage(sys.stderr)
        self.exit(BAD_INPUT, f"{self.prog}: error: {message}\n")


def told(name: str, work: Callable[[], int]) -> int:
    """Run a command; whatever it raises is said on stderr, and is bad input to a script.

    No status is left to Python: that of a traceback, 1, would be an answer, and so would be
    whatever a verifier gives to ``sys.exit``.

    Args:
        name: of the command, for the message.
        work: gives the exit status.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = partial(_shown, warnings.showwarning)
            status = work()
            with as_far_as_read():
                _flush()
            return status
    except KeyboardInterrupt:
        complain(f"\npassk-guard {name}: stopped.")
        return INTERRUPTED
    except SystemExit as error:
        complain(
            f"passk-guard {name}: something that it called, such as the verifier, ended the "
            f"program: SystemExit({error.code!r})."
        )
    except Exception as error:
        if notes := getattr(error, "__notes__", []):  # it is the verifier's: say where
            said = f"passk-guard {name}: {reason_of(error)}\n{' '.join(notes)}\n"
            complain(said + "".join(traceback.format_tb(error.__traceback__, _FRAMES)).rstrip())
        elif isinstance(error, _SAID_IN_A_SENTENCE):
            complain(f"passk-guard {name}: {str(error).strip() or reason_of(error)}")
        else:
            complain(traceback.format_exc().rstrip())
    finally:
        _drop_what_cannot_be_written()
    return BAD_INPUT


def as_far_as_read() -> AbstractContextManager[None]:
    """Around the output: where its reader has gone (``| head``), the answer stays what it is."""
    return suppress(BrokenPipeError)


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _drop_what_cannot_be_written() -> None:
    """It could not be written at the end either, and Python's own status then is 120."""
    try:
        _flush()
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(text: str) -> None:
    """Say it on stderr, if anybody listens there."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _shown(
    otherwise: Callable[..., None], message: Any, kind: type, *place: Any, **more: Any
) -> None:
    """Ours as a sentence, without the line of code that it comes from."""
    if issubclass(kind, PassKGuardWarning):
        complain(str(message))
    else:
        otherwise(message, kind, *place)
