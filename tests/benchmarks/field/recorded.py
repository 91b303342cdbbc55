"""Runs of the field study in processes of their own, each kept as one file."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from field.outcomes import first_alarm
from field.runs import start, training
from field.sizes import TASKS, Size

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
    found = as_watched(run, results)
    if not found:
        with tempfile.TemporaryDirectory() as out:
            if arm == "start":
                found = start(TASKS[name], seed, cache, size)
            else:
                found = training(TASKS[name], seed, arm, cache, size, Path(out))
    seconds = round(time.perf_counter() - began)
    record = {"task": name, "seed": seed, "arm": arm, "run_seconds": seconds, **found}
    results.mkdir(parents=True, exist_ok=True)
    file_of(run, results).write_text(json.dumps(record) + "\n")
    return f"{name}, seed {seed}, {arm}: {seconds} s"


def as_watched(run: Run, results: Path) -> dict[str, Any]:
    """A guarded run without an alarm is the watched one, to the bit: only seed 0's are made."""
    name, seed, arm = run
    path = file_of((name, seed, "watched"), results)
    if arm != "guarded" or seed == 0 or not path.exists():
        return {}
    watched = json.loads(path.read_text())
    return {} if first_alarm(watched) is not None else {**watched, "as": "watched", "arm": arm}


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
