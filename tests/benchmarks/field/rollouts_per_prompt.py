"""How to spend a probe's rollouts on tasks that nobody built: many prompts, or many rollouts each?

    python tests/benchmarks/field/rollouts_per_prompt.py    # half an hour on two cores

Of the starts of the field study, probes with 8192 rollouts each, by ``num_generations``: the error
of the inner product of pass@8 with pass@1, which is the same quantity whatever the number, and the
error of pass@1. Both are of fresh prompts. z is told, too, and has an error of about 1.
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
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from field.runs import K
from field.sizes import FULL, Size
from field.warm_up import warmed_up

from passk_guard import HFPolicy, probe_policy
from passk_guard.runtime.progress import silent

RESULT = Path(__file__).parents[1] / "results" / "field_rollouts_per_prompt.json"
CACHE = Path("runs/field")
ROLLOUTS = 8192
NUMBERS = (K + 1, 3 * K // 2, 2 * K, 4 * K, 8 * K)


def probe(name: str, seed: int, n: int, rollouts: int, cache: Path, size: Size) -> dict[str, Any]:
    """One, on prompts of its own."""
    task, prompts = size.tasks[name], rollouts // n
    model, tokenizer = warmed_up(task, seed, cache, size)
    policy = HFPolicy(model, tokenizer, max_completion_length=task.longest, rollouts_at_once=512)
    rows = task.rows("pool", prompts, 5000 + seed)
    reading = probe_policy(
        policy, rows, task.verify, k=K, num_generations=n, num_prompts=prompts, progress=silent
    ).reading
    rates, found = np.array(reading.correct) / n, reading.alignment
    return {
        "task": name,
        "seed": seed,
        "n": n,
        "prompts": prompts,
        "z": round(found.z, 2) if found else None,
        "inner": float(f"{found.inner:.3g}") if found else None,
        "inner_error": float(f"{found.se:.3g}") if found else None,
        "error": round(float(rates.std(ddof=1)) / math.sqrt(prompts), 4),
        "no_signal": round(float(np.mean((rates == 0) | (rates == 1))), 3),
    }


def main() -> None:
    context, found = multiprocessing.get_context("spawn"), []
    with ProcessPoolExecutor(2, context, max_tasks_per_child=1) as pool:
        waiting = [
            pool.submit(probe, name, seed, n, ROLLOUTS, CACHE, FULL)
            for seed in (0, 100)
            for name, task in FULL.tasks.items()
            for n in NUMBERS
            if not task.wrong_labels
        ]
        for one in waiting:
            found.append(one.result())
            print(found[-1], flush=True)
    RESULT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
