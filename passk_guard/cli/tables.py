"""Tables and text for the terminal, at most 80 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from passk_guard.reporting.visible import visible


def print_text(*paragraphs: str) -> None:
    """Print paragraphs; names of files stay whole, and what a terminal would obey is spelt out."""
    for text in paragraphs:
        plain = _spelt(" ".join(text.split()))
        lines = textwrap.fill(plain, 80, break_on_hyphens=False, break_long_words=False)
        print(lines, flush=True)


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in aligned columns, under a rule; likewise."""
    head, *rows = ([_spelt(cell) for cell in row] for row in [head, *rows])
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in [head, ["-" * width for width in widths], *rows]:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _spelt(text: str) -> str:
    return visible(text, len(text))
