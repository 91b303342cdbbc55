"""What the benchmarks share: one thread, where things lie, and runs that are not repeated."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: tiny models, busy machines
os.environ["HF_HUB_OFFLINE"] = "1"
ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "helpers"), str(ROOT / "examples")]
RESULTS = ROOT / "tests" / "benchmarks" / "results"


def quick(doc: str | None) -> bool:
    """Whether the command was called with ``--quick``, its only option."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--quick", action="store_true", help="a short form; nothing is written")
    return bool(parser.parse_args().quick)


def write(name: str, figures: Any) -> None:
    (RESULTS / name).write_text(json.dumps(figures, indent=1) + "\n")


def write_lines(name: str, rows: dict[str, Any]) -> None:
    """A JSON object with one line per entry."""
    lines = ",\n".join(f" {json.dumps(label)}: {json.dumps(row)}" for label, row in rows.items())
    (RESULTS / name).write_text(f"{{\n{lines}\n}}\n")


def rounded(value: float) -> float:
    """To four significant digits."""
    return float(f"{value:.4g}")


class FinishedRuns:
    """Rows of a CSV file, which are not made again; delete them there to repeat a run.

    Args:
        name: file in ``results``.
        key: columns that name a run.
    """

    def __init__(self, name: str, *key: str) -> None:
        self._path, self._key = RESULTS / name, key
        self.rows = list(csv.DictReader(self._path.open())) if self._path.exists() else []

    def has(self, *key: Any) -> bool:
        wanted = list(map(str, key))
        return any([row[column] for column in self._key] == wanted for row in self.rows)

    def add(self, *rows: dict[str, Any]) -> None:
        columns = list((self.rows or rows)[0])
        with self._path.open("a", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            if not self.rows:
                writer.writeheader()
            writer.writerows(rows)
        self.rows += [{name: str(value) for name, value in row.items()} for row in rows]
        print(" ".join(f"{name}={value}" for name, value in rows[0].items()), flush=True)
