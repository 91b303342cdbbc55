"""What a command prints, at most 80 columns wide, and the page that it writes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

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


def check_page(path: Path | None) -> None:
    """Whether the page of ``--out`` could be written: asked before the work, not after.

    Raises:
        ValueError: a package is missing, or the path is a folder.
        OSError: its folder cannot be made.
    """
    if path is None:
        return
    for package in ("jinja2", "matplotlib"):
        try:
            import_module(package)
        except ImportError as error:
            raise ValueError(
                f"--out needs {package}: pip install 'passk-guard[report]'. --json works without."
            ) from error
    if path.is_dir():
        raise ValueError(f"--out {path} is a folder. Give a file in it, such as {path}/page.html.")
    path.parent.mkdir(parents=True, exist_ok=True)
