"""What do per-prompt gradients cost beside one plain forward and backward?

    python tests/benchmarks/probe_cost.py    # five minutes on one core

All on the same rollouts, on a Llama of 20 M parameters on the CPU. Times are ratios to the plain
forward and backward of the same run, prompt by prompt or many prompts together, whichever is
faster; the least of several, alternating; processor time on one thread, so that a busy machine does
little harm. A probe needs log-probs, too: what does not give them pays a scoring pass beside. Peaks
of memory are ratios to the plain one's. Figures are left in ``results/probe_cost.json``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import bench

# isort: split
from gradient_ways import GradientWays, make_groups, make_model
from peak_memory import peak_memory
from tables import gradient_cost

CONTESTS = {"64 tokens": (8, 8, 64, 8), "8 tokens": (32, 8, 8, 64)}
"""Prompts, rollouts of each, tokens of each, rollouts at once."""

WAYS = ("plain", "batched", "scoring", "hooked_sketch", "hooks", "sketch", "exact")


def least_seconds(works: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Least time of each, alternating."""
    found = dict.fromkeys(works, float("inf"))
    for _ in range(repeats):
        for name, work in works.items():
            start = time.process_time()
            work()
            found[name] = min(time.process_time() - start, found[name])
    return found


def contest(size: tuple[int, int, int, int], repeats: int) -> dict[str, Any]:
    m, n, length, at_once = size
    model = make_model(384, 8, 8192)
    groups = make_groups(m, n, length, 8192, "cpu")
    ways = GradientWays(model, at_once)
    works = {name: partial(getattr(ways, name), groups) for name in WAYS}
    for name in ("plain", "hooks", "hooked_sketch"):  # layers are compared, sketches grow, once
        works[name]()
    seconds = least_seconds(works, repeats)
    plain = min(seconds["plain"], seconds["batched"])
    batched = peak_memory(works["batched"])
    figures: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
    for name, work in works.items():
        beside = 0.0 if name.startswith("hook") else seconds["scoring"]
        figures[name] = {
            "time": round(seconds[name] / plain, 3),
            "scored": round((seconds[name] + beside) / plain, 3),
            "peak": round(peak_memory(work) / batched, 3),
        }
        print(name, figures[name], flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    figures = {name: contest(size, options.repeats) for name, size in CONTESTS.items()}
    if options.repeats > 1:
        bench.write("probe_cost.json", figures)
    print(gradient_cost())


if __name__ == "__main__":
    main()
