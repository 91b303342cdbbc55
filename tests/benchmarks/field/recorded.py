"""Runs of the field study in processes of their own, each kept as one file."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from field.runs import start, training
from field.sizes import Size

Run = tuple[str, int, str]  # task, seed, arm


def file_of(run: Run, results: Path) -> Path:
    name, seed, arm = run
    return results / f"{file_name(name)}-{seed}-{arm}.json"


def file_name(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-")


def one(run: Run, results: Path, cache: Path, size: Size) -> str:
    """Make a run and keep it."""
    name, seed, arm = run
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        if arm == "start":
            found = start(size.tasks[name], seed, cache, size)
        else:
            found = training(size.tasks[name], seed, arm, cache, size, Path(out))
    seconds = round(time.perf_counter() - began)
    record = {"task": name, "seed": seed, "arm": arm, "run_seconds": seconds, **found}
    results.mkdir(parents=True, exist_ok=True)
    file_of(run, results).write_text(json.dumps(record) + "\n")
    return f"{name}, seed {seed}, {arm}: {seconds} s"


def make(runs: Sequence[Run], results: Path, cache: Path, size: Size, workers: int) -> int:
    """All of them, each in a process of its own; how many were lost."""
    lost = 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, max_tasks_per_child=1) as pool:
        waiting = [pool.submit(one, run, results, cache, size) for run in runs]
        for number, done in enumerate(as_completed(waiting), start=1):
            fault = done.exception()
            lost += fault is not None
            said = done.result() if fault is None else f"lost: {fault!r}"
            print(f"{number}/{len(runs)} {said}", flush=True)
    return lost
