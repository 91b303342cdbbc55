"""The guard's estimators on completions of 100 to 160 tokens: coverage, bias, and what lasts.

    python tests/benchmarks/field/estimators.py            # an hour on a core; goes on if stopped
    python tests/benchmarks/field/estimators.py --quick    # a minute at toy size, nothing is kept
    python tests/benchmarks/field/estimators.py --table    # of what is there

A small model learns long sums until it solves about two in five, and pass@8 training takes it on.
From a bank of 192 prompts x 128 rollouts of the start, a thousand simulated measurements of 64 x 16
each, of which the truth is known:

* paired drift: how often its 95 % interval holds the change of pass@1, after 5 to 40 steps at three
  learning rates, and its bias; beside its error that of sampling the same prompts again;
* how many of the start's rollouts still count, by steps passed and by tokens;
* the inner product of the pass@8 gradient with the pass@1 gradient and their cosine, from probes of
  a bank of 1,536 prompts x 16 rollouts: how often intervals hold the truth, and how often a sure
  sign is wrong. As it is, and with weights changed by a constant so that the truth is a right
  angle, or a conflict. Beside it what not to do: prompts paired with themselves and plug-in
  weights.

The full form leaves its figures in ``results/field_estimators.json``, and exits with an error where
an interval of a usable measurement is surely below .9, or what not to do does not fail.
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
import tempfile
from typing import Any

import torch
from field import cosine_coverage, drift_coverage
from field.rollout_banks import (
    FULL,
    QUICK,
    Size,
    kept,
    later,
    policy_of,
    start,
    start_bank,
    wide_bank,
)

RESULTS = Path(__file__).parents[1] / "results" / "field_estimators.json"
LEAST = 0.9


def measure(cache: Path, size: Size) -> dict[str, Any]:
    """Everything, part by part; what takes long is in the cache."""
    groups, _ = start_bank(cache, size)
    rates = torch.stack([group.success for group in groups]).mean(1)
    found: dict[str, Any] = {
        "start": {
            "pass_at_1": float(rates.mean()),
            "spread": float(rates.std()),
            "no_signal": sum(not group.has_signal for group in groups) / len(groups),
            "tokens": float(torch.cat([g.completion_mask.sum(-1) for g in groups]).float().mean()),
        },
        "drift": [],
    }
    print(found["start"], flush=True)
    for rate, steps in size.runs:
        for step in steps:
            found["drift"].append(drift(cache, size, rate, step))
            print(drift_row(found["drift"][-1]), flush=True)
    found["gradients"] = gradients(cache, size)
    return found


def drift(cache: Path, size: Size, rate: float, step: int) -> dict[str, Any]:
    """Of one later policy."""

    def one() -> dict[str, Any]:
        (groups, before), then = start_bank(cache, size), later(cache, size, rate, step)
        return {
            "rate": rate,
            "step": step,
            **drift_coverage.coverage(groups, before, then, size.draws, step),
            "spread": drift_coverage.spread(groups, before, then),
        }

    found: dict[str, Any] = kept(cache / f"drift-{rate:g}-{step}.pt", one)
    return found


def gradients(cache: Path, size: Size) -> dict[str, Any]:
    """Of the start, on many prompts."""

    def taken() -> cosine_coverage.Bank:
        policy = policy_of(*start(cache, size), size)
        return cosine_coverage.bank_of(policy, wide_bank(cache, size))

    bank = kept(cache / "wide-gradients.pt", taken)
    return {
        "cosine_error": cosine_coverage.cosine_error(bank),
        "probes": {
            update: cosine_coverage.coverage(bank, less, size.draws, 0)
            for update, less in cosine_coverage.updates(bank).items()
        },
    }


def drift_row(one: dict[str, Any]) -> str:
    spread = one["spread"]
    return (
        f"| {one['rate']:g} | {one['step']} | {spread['size']:.3f} | {spread['per_token']:.2g} "
        f"| {one['truth']:+.4f} ± {one['truth_se']:.4f} | {one['se']:.4f} "
        f"| {one['sampled_again_se']:.4f} "
        f"| {one['se_over_sd']:.2f} | {one['bias_over_se']:+.2f} | {one['inside']:.3f} "
        f"| {one['usable']:.2f} |"
    )


def print_tables(found: dict[str, Any]) -> None:
    print(
        "\n| rate | step | size | per token | truth | se | sampled again | se/sd | bias/se "
        "| inside | usable |"
    )
    print("|" + "---|" * 11)
    for one in found["drift"]:
        print(drift_row(one))
    print("\n| rate | step | " + "size (tokens), from short to long")
    for one in found["drift"]:
        bins = (f"{part['size']:.3f} ({part['tokens']:.0f})" for part in one["spread"]["bins"])
        print(f"| {one['rate']:g} | {one['step']} | {' | '.join(bins)} |")
    print(f"\ncosine ± {found['gradients']['cosine_error']:.3f}")
    print("| update | truth | inside | width | surely below 0 | surely above 0 | sized |")
    print("|---|---|---|---|---|---|---|")
    for update, one in found["gradients"]["probes"].items():
        keys = ("inside", "width", "surely_below", "surely_above", "sized")
        figures = " | ".join(f"{one['interval'][key]:.3f}" for key in keys)
        print(f"| {update} | {one['cosine']:+.3f} | {figures} |")
        print(f"  inner product: {rounded(one['inner'])}")
        print(f"  what not to do: {rounded(one['naive'])}")


def rounded(cell: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 3) for key, value in cell.items()}


def shortcomings(found: dict[str, Any]) -> list[str]:
    """What is surely out of bounds."""
    slack = lambda draws: 3 * math.sqrt(LEAST * (1 - LEAST) / max(draws, 1))  # noqa: E731
    cells = {
        f"drift, {one['rate']:g}, step {one['step']}": (one["inside"], one["usable"] * one["draws"])
        for one in found["drift"]
    }
    probes = found["gradients"]["probes"]
    for update, one in probes.items():
        for what in ("inner", "interval"):
            cells[f"{what}, {update}"] = one[what]["inside"], one["draws"]
    low = [
        f"{name}: {inside:.3f}"
        for name, (inside, draws) in cells.items()
        if inside < LEAST - slack(draws)  # False for NaN: nothing was usable
    ]
    naive = [one["naive"]["inside"] for one in probes.values()]
    return low + (["what not to do does not fail"] if min(naive) > LEAST else [])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, default=Path("runs/field/estimators"))
    options = parser.parse_args()
    if options.quick:
        with tempfile.TemporaryDirectory() as elsewhere:
            print_tables(measure(Path(elsewhere), QUICK))
        return
    if not options.table:
        found = measure(options.cache, FULL)
        options.results.parent.mkdir(parents=True, exist_ok=True)
        options.results.write_text(json.dumps(found, indent=1) + "\n")
    found = json.loads(options.results.read_text())
    print_tables(found)
    if low := shortcomings(found):
        sys.exit("out of bounds: " + "; ".join(low))


if __name__ == "__main__":
    main()
