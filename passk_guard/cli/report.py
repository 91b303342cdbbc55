"""``passk-guard report RUN_DIR``: a run as one HTML page, or as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from passk_guard.reporting.read_run import Run, read_run
from passk_guard.reporting.summary import summary


def add(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "report",
        help="a run as one HTML page",
        description="Write a run, finished or not, as one HTML page that needs no network.",
    )
    parser.add_argument(
        "run_dir",
        type=Path,
        metavar="RUN_DIR",
        help="the trainer's output_dir (Lightning: default_root_dir), or a passk_guard.jsonl",
    )
    parser.add_argument(
        "--out", type=Path, help="where to write (default: passk_guard.html in RUN_DIR)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Carry it out; 1 where there is no run or the page cannot be written."""
    try:
        found = read_run(arguments.run_dir)
        if arguments.json:
            print(json.dumps(summary(found), indent=2))
            return 0
        out = arguments.out or found.path.with_suffix(".html")  # each journal has its own
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(_page(found), encoding="utf-8")
    except (OSError, ModuleNotFoundError) as error:
        print(f"passk-guard report: {error}", file=sys.stderr)
        return 1
    print(f"{summary(found)['sentence']}\n{out}")
    return 0


def _page(found: Run) -> str:
    try:
        from passk_guard.reporting.page import page
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the page needs {error.name}: pip install 'passk-guard[report]'. --json works without."
        ) from error
    return page(found)
