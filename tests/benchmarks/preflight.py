"""What `passk-guard probe` says before training, where the answer is known.

    python tests/benchmarks/preflight.py                # a quarter of an hour on one core
    python tests/benchmarks/preflight.py --seeds 10:12  # some of it, nothing is written

Ambiguous arithmetic (``examples/ambiguous_arithmetic.py``), a model of its own for each of twenty
seeds, 512 prompts x 16 rollouts, k = 8:

* ``conflict``: 30 % of the rows want the product; pass@8 training lowers pass@1 by 12 points;
* ``healthy``: every row wants the sum, pass@8 is 1: nothing is left for a pass@8 step to do;
* ``hard only``: every row wants the product, which the model rarely gives: both gradients agree;

each read once, and again with ``early_stop``; and an untrained model on GSM8K, which solves
nothing: the time of its probe is told as a multiple of the time that its sampling took.

Exits with an error where the verdicts are not as they must be. The full form leaves its figures in
``results/preflight.json``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import bench

# isort: split
import ambiguous_arithmetic as task
import gsm8k
import models
import torch
from arithmetic_loop import warmed_up

from passk_guard import HFPolicy
from passk_guard.checkpoints.probe_policy import PolicyProbe, probe_policy
from passk_guard.runtime.progress import silent

TASKS = {"conflict": 0.3, "healthy": 0.0, "hard only": 1.0}
PROMPTS = 512


def read(policy: HFPolicy, products: float, seed: int, early_stop: bool) -> PolicyProbe:
    rows = task.make_rows(PROMPTS, products=products, seed=7000 + seed).to_list()
    return probe_policy(
        policy, rows, task.right_answer, early_stop=early_stop, seed=seed, progress=silent
    )


def of_seed(seed: int, cache: Path) -> list[dict[str, Any]]:
    model, tokenizer = warmed_up(seed, cache)
    policy = HFPolicy(
        model, tokenizer, max_completion_length=task.ANSWER_TOKENS, rollouts_at_once=1024
    )
    found = []
    for name, products in TASKS.items():
        for early_stop in (False, True):
            probe = read(policy, products, seed, early_stop)
            test = probe.reading.test
            found.append(
                {
                    "task": name,
                    "seed": seed,
                    "early_stop": early_stop,
                    "verdict": str(probe.reading.verdict),
                    "z": None if test is None else round(test.z, 2),
                    "prompts": probe.reading.prompts,
                    "pass_at_1": round(probe.reading.pass_at[0].value, 4),
                    "pass_at_8": round(probe.reading.pass_at[7].value, 4),
                }
            )
            print(found[-1], flush=True)
    return found


def untrained(prompts: int) -> dict[str, Any]:
    """GSM8K on a model that knows nothing: its probe's time in units of its sampling's."""
    torch.manual_seed(0)
    problems = gsm8k.problems()[:prompts]
    model, tokenizer = models.load(None, [one["question"] for one in problems])
    rows = gsm8k.make_rows(tokenizer).select(range(prompts)).to_list()
    policy = HFPolicy(model, tokenizer, max_completion_length=32, rollouts_at_once=256)
    probe = probe_policy(policy, rows, gsm8k.solved, progress=silent)
    seconds = probe.seconds
    return {
        "verdict": str(probe.reading.verdict),
        "sentence": probe.sentence,
        "of_sampling": round(sum(seconds.values()) / seconds["sampling"], 3),
    }


def judged(found: list[dict[str, Any]]) -> dict[str, Counter[str]]:
    """Verdicts by task, at one look and with early stopping."""
    by_task: dict[str, Counter[str]] = {}
    for one in found:
        key = one["task"] + (", early stop" if one["early_stop"] else "")
        by_task.setdefault(key, Counter())[one["verdict"]] += 1
    return by_task


def wrong(by_task: dict[str, Counter[str]], seeds: int) -> list[str]:
    """What is not as it must be."""
    lowers, raises, nil = "would lower pass@1", "would not lower pass@1", "gradient nil"
    said = []
    for name, least in (("conflict", 0.95), ("hard only", 0.9), ("healthy", 1.0)):
        sure = {"conflict": lowers, "hard only": raises, "healthy": nil}[name]
        if by_task[name][sure] < least * seeds:
            said.append(f"{name}: too rarely sure")
    for name, verdicts in by_task.items():
        if verdicts[raises if "conflict" in name else lowers]:
            said.append(f"{name}: sure of the wrong sign")
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0:20")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "warm")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task.expect_doubles()
    first, last = map(int, options.seeds.split(":"))
    found = [one for seed in range(first, last) for one in of_seed(seed, options.cache)]
    by_task, silence = judged(found), untrained(64)
    for name, verdicts in by_task.items():
        print(f"| {name} | {', '.join(f'{v} {k}' for k, v in verdicts.most_common())} |")
    print(silence)
    complaints = wrong(by_task, last - first)
    if silence["verdict"] != "no signal":
        complaints.append("untrained: not silent")
    if options.seeds == "0:20":
        bench.write("preflight.json", {"runs": found, "untrained": silence})
    if complaints:
        sys.exit("; ".join(complaints))


if __name__ == "__main__":
    main()
