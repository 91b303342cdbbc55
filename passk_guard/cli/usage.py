"""Exit statuses that a script can rely on, and the parser that keeps to them."""

from __future__ import annotations

import argparse
import sys
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from passk_guard.errors import PassKGuardWarning

__all__ = ["BAD_INPUT", "INTERRUPTED", "Parser", "told"]

BAD_INPUT = 3
"""Bad input or usage. 0, 1 and 2 are answers of ``passk-guard compare``."""
INTERRUPTED = 130
"""Ctrl-C, as a shell has it."""


class Parser(argparse.ArgumentParser):
    """Argparse's own status for bad usage is 2, which is an answer here."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end."""
        self.print_usage(sys.stderr)
        self.exit(BAD_INPUT, f"{self.prog}: error: {message}\n")


def told(name: str, work: Callable[[], int]) -> int:
    """Run a command; whatever it raises is said on stderr, and is bad input to a script.

    Args:
        name: of the command, for the message.
        work: gives the exit status.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = partial(_shown, warnings.showwarning)
            return work()
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"passk-guard {name}: {error}", file=sys.stderr)
    except Exception:  # a traceback's own status, 1, would be an answer
        traceback.print_exc()
    return BAD_INPUT


def _shown(
    otherwise: Callable[..., None], message: Any, kind: type, *place: Any, **more: Any
) -> None:
    """Ours as a sentence, without the line of code that it comes from."""
    if issubclass(kind, PassKGuardWarning):
        print(message, file=sys.stderr)
    else:
        otherwise(message, kind, *place)
