"""``passk-guard COMMAND``, and exit statuses that a script can rely on."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

from passk_guard import __version__
from passk_guard.cli import compare, doctor, probe, report, watch
from passk_guard.errors import PassKGuardWarning, reason_of

# Bad input or usage, and Ctrl-C. 0, 1 and 2 are answers of ``passk-guard compare``.
BAD_INPUT, INTERRUPTED = 3, 130
_SAID_IN_A_SENTENCE = (ValueError, OSError, ImportError, RuntimeError)
_FRAMES = -3  # of a verifier's traceback: the last ones are its own


class _Parser(argparse.ArgumentParser):
    """Argparse's own status for bad usage is 2, which is an answer here."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(BAD_INPUT, f"{self.prog}: error: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit status.

    Each command's module adds a parser whose default ``run`` takes the parsed arguments.
    """
    parser = _Parser(
        prog="passk-guard", description="Know when optimising pass@k is costing you pass@1."
    )
    parser.add_argument("--version", action="version", version=f"passk-guard {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for command in (watch, report, probe, compare, doctor):
        command.add(commands)
    arguments = parser.parse_args(argv)
    return exit_status(f"passk-guard {arguments.command}", partial(arguments.run, arguments))


def exit_status(name: str, work: Callable[[], int]) -> int:
    """Run a command; whatever it raises is said on stderr, and is bad input to a script.

    No status is left to Python: that of a traceback, 1, would be an answer, and so would be
    whatever a verifier gives to ``sys.exit``.

    Args:
        name: of the command, for the message.
        work: gives the exit status.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = partial(_show_warning, warnings.showwarning)
            status = work()
            print(end="", flush=True)
            return status
    except KeyboardInterrupt as error:
        _complain(f"\n{name}: stopped. {error}".rstrip())
        return INTERRUPTED
    except SystemExit as error:
        _complain(
            f"{name}: something that it called, such as the verifier, ended the program: "
            f"SystemExit({error.code!r})."
        )
    except Exception as error:
        if notes := getattr(error, "__notes__", []):  # it is the verifier's: say where
            said = f"{name}: {reason_of(error)}\n{' '.join(notes)}\n"
            _complain(said + "".join(traceback.format_tb(error.__traceback__, _FRAMES)).rstrip())
        elif isinstance(error, _SAID_IN_A_SENTENCE):
            _complain(f"{name}: {str(error).strip() or reason_of(error)}")
        else:
            _complain(traceback.format_exc().rstrip())
    try:
        print(end="", flush=True)
    except OSError:  # Python would try again as it ends, and fail with 120
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BAD_INPUT


def _complain(text: str) -> None:
    """Say it on stderr, if anybody listens there."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _show_warning(
    otherwise: Callable[..., None], message: Any, kind: type, *place: Any, **more: Any
) -> None:
    """Ours as a sentence, without the line of code that it comes from."""
    if issubclass(kind, PassKGuardWarning):
        _complain(str(message))
    else:
        otherwise(message, kind, *place)
