"""What stored rollouts tell of a loss, where most prompts are nearly always solved or never.

    python tests/benchmarks/field/always_right.py    # half an hour on a core; nothing is repeated

A model that has learned multiplication, or arithmetic expressions, is trained on the pass@8
objective by plain policy gradient. 512 held-out prompts have 12 stored rollouts each, scored again
after 5, 10, 20 and 40 steps. The truth is sampled on the same prompts, 48 rollouts of each at start
and then. Beside the guard's estimate (``paired_change``) others of the same family,
``mean (r - b)(ρ - 1)``: each has the mean Δp for any b that does not know the rollout. p is the
share of right ones among the prompt's others.

Leaves its figures in ``results/field_always_right.json``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))  # "field" is a package there

import argparse
import json
import math
from collections.abc import Sequence
from typing import Any

import torch
from field import rollout_banks as banks
from field.drift_coverage import effective_size, sequence_shift
from field.sizes import FULL
from field.warm_up import warmed_up
from torch import Tensor

from passk_guard import HFPolicy
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.scores import score_all
from passk_guard.statistics.paired_drift import paired_change

RESULTS = Path(__file__).parents[1] / "results" / "field_always_right.json"
PROMPTS, STORED, MANY = 512, 12, 48
STEPS, SEED = (5, 10, 20, 40), 100
BASELINES = {
    "p": lambda p: p,
    "0": lambda p: 0 * p,
    "1 - p": lambda p: 1 - p,
    "min(p, 1 - p)": lambda p: torch.minimum(p, 1 - p),
}


def estimates(groups: Sequence[RolloutGroup], gain: Tensor) -> dict[str, list[float]]:
    """Change and its standard error over prompts, by baseline.

    Args:
        groups: the stored rollouts.
        gain: ``(prompts, n)``, of mean 0 where nothing has moved.
    """
    right = torch.stack([group.success for group in groups]).double()
    others = (right.sum(1, keepdim=True) - right) / (right.shape[1] - 1)
    found = {}
    for name, baseline in BASELINES.items():
        found[name] = mean_of(((right - baseline(others)) * gain).mean(1))
    return found


def mean_of(values: Tensor) -> list[float]:
    return [round(float(values.mean()), 5), round(float(values.std()) / math.sqrt(len(values)), 5)]


def run(name: str, cache: Path) -> list[dict[str, Any]]:
    task = FULL.tasks[name]
    size = banks.Size(task=task)
    model, tokenizer = warmed_up(task, SEED, cache, FULL)
    policy = HFPolicy(
        model.eval(), tokenizer, max_completion_length=task.longest, rollouts_at_once=512
    )
    rows, training = task.rows("pool", PROMPTS, 0), task.rows("training", 4096, 0)
    stored = banks.sampled(policy, rows, STORED, 1, size)
    before = score_all(policy, stored)
    start = solved(banks.sampled(policy, rows, MANY, 2, size))
    optimizer = torch.optim.Adam(model.parameters(), lr=task.learning_rate)
    generator, found = torch.Generator().manual_seed(0), []
    for step in range(1, max(STEPS) + 1):
        pick = torch.randint(len(training), (banks.GROUPS,), generator=generator).tolist()
        batch = banks.sampled(policy, [training[i] for i in pick], banks.N, 1000 + step, size)
        banks.update(policy, batch)
        optimizer.step()
        optimizer.zero_grad()
        if step not in STEPS:
            continue
        after, now = score_all(policy, stored), solved(banks.sampled(policy, rows, MANY, 3, size))
        ours, shift = paired_change(stored, before, after), sequence_shift(stored, before, after)
        found.append(
            {
                "task": name,
                "step": step,
                "start": round(float(start.mean()), 4),
                "always_right": sum(group.correct == STORED for group in stored) / PROMPTS,
                "truth": mean_of(now - start),
                "size": round(effective_size(shift.flatten()), 3),
                "guard": [round(ours.change, 5), round(ours.se, 5)],
                "usable": ours.usable,
                "ratios": estimates(stored, shift.expm1()),
            }
        )
        print(json.dumps(found[-1]), flush=True)
    return found


def solved(groups: Sequence[RolloutGroup]) -> Tensor:
    """``(prompts,)`` shares."""
    return torch.stack([group.success for group in groups]).double().mean(1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", default=["multiplication", "expressions"])
    parser.add_argument("--cache", type=Path, default=Path("runs/field"))
    options = parser.parse_args()
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    for name in options.tasks:
        if not any(one["task"] == name for one in found):
            found += run(name, options.cache)
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
