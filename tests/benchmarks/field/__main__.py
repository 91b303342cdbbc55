"""A conflict that nobody built? What the guard sees on tasks that were not made to conflict.

    python tests/benchmarks/field                  # hours on two cores; can be stopped and goes on
    python tests/benchmarks/field --quick          # every part of it at toy size, nothing is kept
    python tests/benchmarks/field --table          # of what is there, and a picture of each task

Small language models are trained from scratch until they solve a part of a task whose solutions
have steps and whose verifier is a program, see ``sizes.py``. From there ``GRPOTrainer`` trains on,
for each of three seeds:

* ``start``: no training; how the start reads, to ``probe``, too;
* ``watched``: pass@8 training, the guard only warns;
* ``grpo``: the trainer's own objective, the guard only warns;
* ``guarded``: pass@8 training with ``action=["warn", "mix"]``.

The truth is sampled on 300 problems that nothing else sees. Settings of training and guard are the
same for all tasks; the learning rate is chosen in ``learning_rates.py``. Each run is one file in
``results/field``, and is not repeated while that is there.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # "field" is a package there
import bench

# isort: split
import argparse
import json
import tempfile

from field.pictures import draw
from field.recorded import file_name, file_of, make
from field.runs import ARMS
from field.sizes import FULL, QUICK, TASKS
from tables import field_agreement, field_study


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--arms", nargs="+", default=["start", *ARMS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=2, help="runs at once, a core each")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--cache", type=Path, default=Path("runs/field"), help="warmed-up models")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as elsewhere:
        results, cache, size, lost = bench.RESULTS / "field", options.cache, FULL, 0
        if options.quick:
            results, cache, size = Path(elsewhere), Path(elsewhere), QUICK
        if not options.table:
            runs = [
                (name, seed, arm)
                for seed in options.seeds
                for arm in options.arms
                for name in sorted(options.tasks, key=lambda name: TASKS[name].wrong_labels)
                if not file_of((name, seed, arm), results).exists()
            ]
            lost = make(runs, results, cache, size, options.workers)
    if lost:
        sys.exit(f"{lost} runs were lost; the next call makes them")
    if not options.quick:
        print(f"{field_study()}\n\n{field_agreement()}")
        options.cache.mkdir(parents=True, exist_ok=True)
        records = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
        for name in options.tasks:
            mine = {(r["seed"], r["arm"]): r for r in records if r["task"] == name}
            draw(name, mine, FULL, options.cache / f"field-{file_name(name)}.png")


if __name__ == "__main__":
    main()
