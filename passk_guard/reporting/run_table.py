"""A run in a few lines, for the end of training."""

from __future__ import annotations

import io
import shlex
from collections.abc import Sequence
from pathlib import Path

from passk_guard.look import Look, Probe, Rescore
from passk_guard.reporting.table import cells, history_table, selected
from passk_guard.reporting.terminal_progress import import_rich, is_terminal


def run_summary(
    history: Sequence[Probe], rescores: Sequence[Rescore], journal: Path | None = None
) -> str:
    """A table of the run, and where there is more. In colour where rich and a terminal are there.

    Args:
        history: at least one probe.
        rescores: of the same run.
        journal: the run's JSONL.
    """
    looks = selected(history, rescores)
    try:
        table = coloured_table(looks) if is_terminal() else history_table(looks)
    except Exception:  # rich is missing, too old, or fails: the figures are what matters
        table = history_table(looks)
    left_out = len(history) - sum(isinstance(look, Probe) for look in looks)
    lines = ["", table.rstrip("\n")]
    if left_out:
        lines.append(f"({left_out} of {len(history)} probes are left out here.)")
    if journal is not None and journal.exists():
        lines.append(f"More: passk-guard report {shlex.quote(str(journal.parent))}")
    return "\n".join(lines)


def coloured_table(looks: Sequence[Look]) -> str:
    """The table with escape codes for the terminal that runs this: alarms red, conflicts yellow.

    Raises:
        ImportError: rich is missing.
    """
    import_rich()
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    head, *rows = cells(looks)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for name in head:
        table.add_column(name, justify="right")
    for look, row in zip(looks, rows, strict=True):
        style = "bold red" if look.alarm is not None else "yellow" if look.conflict else None
        table.add_row(*row, style=style)
    text = io.StringIO()
    Console(file=text, force_terminal=True, highlight=False).print(table)
    return text.getvalue()
