"""``passk-guard COMMAND``."""

from __future__ import annotations

from collections.abc import Sequence

from passk_guard import __version__
from passk_guard.cli import compare, doctor, probe, report
from passk_guard.cli.usage import Parser

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit status.

    Each command's module adds a parser whose default ``run`` takes the parsed arguments.
    """
    parser = Parser(
        prog="passk-guard", description="Know when optimising pass@k is costing you pass@1."
    )
    parser.add_argument("--version", action="version", version=f"passk-guard {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (report, probe, compare, doctor):
        command.add(commands)
    arguments = parser.parse_args(argv)
    status: int = arguments.run(arguments)
    return status
