"""Tables for the terminal: by rich where it is installed, aligned text elsewhere."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from itertools import chain, zip_longest

__all__ = ["print_line", "print_table", "signed"]

# Words carry the meaning; signs and colours only repeat it.
_SIGNS = {"good": "✓", "bad": "✗", "doubtful": "!"}
_STYLES = {"✓": "green", "✗": "bold red", "!": "yellow"}
_PLAIN = str.maketrans("✓✗─", "+x-")
_GAP = 3


def signed(tone: str, text: str) -> str:
    """A text behind the sign of its tone, ``"good"``, ``"bad"``, ``"doubtful"`` or ``""``."""
    return f"{_SIGNS.get(tone, '-')} {text}"


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows no wider than the terminal: the last column is wrapped.

    Args:
        head: names of the columns.
        rows: cells, which may have several lines.
    """
    columns = [*zip(head, *rows, strict=True)][:-1]
    used = sum(max(map(len, "\n".join(column).split("\n"))) + _GAP for column in columns)
    last = max(shutil.get_terminal_size().columns - used, 24)
    wrapped = [[*row[:-1], _wrapped(row[-1], last)] for row in rows]
    try:
        show = _by_rich if _has_signs() else _as_text
        show(head, wrapped)
    except ImportError:
        _as_text(head, wrapped)


def print_line(text: str = "") -> None:
    """Print, in whatever characters the terminal has."""
    if not _has_signs():
        text = text.translate(_PLAIN).encode("ascii", "replace").decode()
    print(text, flush=True)


def _has_signs() -> bool:
    try:
        "✓✗─".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _wrapped(cell: str, width: int) -> str:
    """Each line as long as may be; what it goes on with is indented more."""
    parts = []
    for line in cell.split("\n"):
        indent = line[: len(line) - len(line.lstrip())] + "  "
        parts += textwrap.wrap(line, width, subsequent_indent=indent)
    return "\n".join(parts)


def _by_rich(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*head, box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for row in rows:
        cells = [Text(cell) for cell in row]  # square brackets are no markup here
        for cell in cells:
            cell.stylize(_STYLES.get(cell.plain[:1], ""), 0, 1)
        table.add_row(*cells)
    Console(file=sys.stdout, width=shutil.get_terminal_size().columns).print(table)


def _as_text(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    # Cells of several lines become lines of cells.
    split = [zip_longest(*(cell.split("\n") for cell in row), fillvalue="") for row in rows]
    lines = [tuple(head), *chain.from_iterable(split)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("─" * width for width in widths))
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print_line((" " * _GAP).join(cells).rstrip())
