"""Is the guard's figure the truth of *its own* prompts, where policies move fastest?

    python tests/benchmarks/field/on_the_pool.py    # half an hour on two cores

The study's test set and the guard's pool are different prompts, and what training does to the ones
differs from what it does to the others. So the first 20 steps of every pass@8 run on expressions
are made once more, with the truth taken on the pool: samples of all its prompts, at the start and
then. What is in the result is not made again.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import json
import math
import multiprocessing
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from field.problems import Task
from field.runs import read, training
from field.sizes import FULL, Size
from field.warm_up import warmed_up

RESULT = Path(__file__).parents[1] / "results" / "field_on_the_pool.json"
CACHE = Path("runs/field")
NAMES = ("expressions", "expressions, wrong labels")
SIZE = replace(FULL, steps=20, test=FULL.pool, many=16)


class OnPool(Task):
    """A task whose test set is the guard's pool."""

    def rows(self, part: str, size: int, seed: int) -> list[dict[str, Any]]:
        return super().rows("pool" if part == "test" else part, size, seed)


def compared(name: str, seed: int, cache: Path, size: Size) -> dict[str, Any]:
    """One run: what the guard says of its last look, and the truth on its pool."""
    task = OnPool(**vars(size.tasks[name]))
    rows = task.rows("test", size.test, 0)
    start = read(*warmed_up(task, seed, cache, size), task, rows, size.many, 1_000_000)
    with tempfile.TemporaryDirectory() as out:
        run = training(task, seed, "watched", cache, size, Path(out))
    look, end = run["looks"][-1], run["counts"][size.steps]
    return {
        "task": name,
        "seed": seed,
        "step": look["step"],
        "guard": [look["change"], look["change_se"]],
        "truth": [round(figure, 5) for figure in change_on_all(start, end, size.many)],
    }


def change_on_all(start: Sequence[int], end: Sequence[int], n: int) -> tuple[float, float]:
    """Change of pass@1 on prompts that are all there are, so that n samples alone make its error.

    Args:
        start, end: ``(m,)`` right ones.
        n: samples of each.
    """
    first, last = np.array(start) / n, np.array(end) / n
    noise = sum(float((p * (1 - p)).sum()) / (n - 1) for p in (first, last))
    return float((last - first).mean()), math.sqrt(noise) / len(first)


def main() -> None:
    found = json.loads(RESULT.read_text()) if RESULT.exists() else []
    there = [(one["task"], one["seed"]) for one in found]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, max_tasks_per_child=1) as pool:
        waiting = [
            pool.submit(compared, name, seed, CACHE, SIZE)
            for seed in (0, 1, 2)
            for name in NAMES
            if (name, seed) not in there
        ]
        for one in waiting:
            found.append(one.result())
            print(found[-1], flush=True)
            RESULT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
