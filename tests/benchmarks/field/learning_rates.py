"""The learning rate of the field study: the one at which plain GRPO does the tasks most good.

    python tests/benchmarks/field/learning_rates.py    # a quarter of an hour on two cores

On seed 100, which is in no table, so that nobody chose a rate by what the guard does there.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import bench

# isort: split
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
from field.runs import read, training
from field.sizes import FULL, TASKS
from field.warm_up import warmed_up

CACHE, SEED = Path("runs/field"), 100
RATES = [3e-5, 6e-5, 1e-4]
SIZE = replace(FULL, look=FULL.steps, every=FULL.steps, many=32)


def at_start(name: str) -> list[int]:
    """Right samples of each test problem."""
    task = TASKS[name]
    rows = task.rows("test", SIZE.test, 0)
    return read(*warmed_up(task, SEED, CACHE, SIZE), task, rows, SIZE.many, 1_000_000)


def at_end(name: str, rate: float) -> list[int]:
    """The same after plain GRPO."""
    task = replace(TASKS[name], learning_rate=rate)
    with tempfile.TemporaryDirectory() as out:
        return training(task, SEED, "grpo", CACHE, SIZE, Path(out))["counts"][SIZE.steps]


def main() -> None:
    names = [name for name, task in TASKS.items() if not task.wrong_labels]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, max_tasks_per_child=1) as pool:
        starts = {name: pool.submit(at_start, name) for name in names}
        for start in starts.values():
            start.result()  # the warmed-up models are there
        ends = {(name, rate): pool.submit(at_end, name, rate) for name in names for rate in RATES}
        found = []
        for (name, rate), end in ends.items():
            paired = (np.array(end.result()) - np.array(starts[name].result())) / SIZE.many
            change, se = paired.mean(), paired.std(ddof=1) / len(paired) ** 0.5
            pass1 = float(np.mean(starts[name].result())) / SIZE.many
            found.append(
                {
                    "task": name,
                    "learning_rate": rate,
                    "start": round(pass1, 4),
                    "change": round(float(change), 4),
                    "se": round(float(se), 4),
                }
            )
            print(found[-1], flush=True)
    bench.write("field_learning_rates.json", found)


if __name__ == "__main__":
    main()
