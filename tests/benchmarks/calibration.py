"""Are the error rates what they are said to be? Simulations with a known truth, as tables.

    python tests/benchmarks/calibration.py            # six minutes on one core
    python tests/benchmarks/calibration.py --quick    # what CI runs, under a minute

* False alarms per look where there is no conflict, at the shipped nominal rate and at a higher one,
  beside the rule that studentises by the same probe's error. The parts apart, on every kind of
  null: ``fused_calibration.py``; the test of the reference: ``first_calibration.py``.
* Coverage of the 95 % intervals of the inner product, of the drift and of the change of pass@1, on
  a policy whose pass@1 is known exactly at any length (``tests/coins.py``).
* Verdicts about the pool, not the batch: the finite-set cosine of one fixed batch against fresh
  batches.

Exits with an error where a figure is out of bounds, and where a negative control is not: the rule
beside the alarms, and intervals that are a quarter shorter. The full form leaves its figures in
``results/calibration.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

import numpy as np
import torch
from coins import CoinPolicy
from nulls import NULLS

from passk_guard import PassKGuardConfig
from passk_guard.detection.cusum import cusum_threshold
from passk_guard.detection.detector import LookEvidence
from passk_guard.detection.episodes import ConflictDetector
from passk_guard.statistics.alignment import (
    Alignment,
    debiased_cosine,
    estimate_alignment,
    symmetric_kernel,
    weighted_alignment,
)
from passk_guard.statistics.levels import Levels
from passk_guard.statistics.rollout_store import Drift
from passk_guard.statistics.track import Level, Pass1Track
from passk_guard.statistics.variance import VarianceParts, pooled_parts, variance_parts

RESULTS = Path(__file__).parent / "results" / "calibration.json"

NULLS_SHOWN = (
    "low rank, constant weights",
    "heavy tails",
    "orthogonal, rank 3",
    "orthogonal, rank 40, strong",
    "orthogonal, rare hard, weak",
    "rollouts, weak",
)
NAMES_QUICK = ("heavy tails", "orthogonal, rank 3")


class NullProbes:
    """Probes without a conflict: their alignment, and the scale that past ones foretell."""

    def __init__(self, name: str, seed: int) -> None:
        self._sample, self._rng = NULLS[name], np.random.default_rng(seed)
        self._parts: list[VarianceParts] = []

    def _drawn(self, m: int) -> tuple[np.ndarray, np.ndarray]:
        gradients, weights = self._sample(self._rng, m)
        gramian = gradients @ gradients.T
        parts = variance_parts(symmetric_kernel(gramian, weights))
        self._parts = [*self._parts, parts][-20:]
        return gramian, weights

    def begin(self) -> None:
        """A run begins, with the reference's gradients."""
        self._parts = []
        self._drawn(512)

    def probe(self) -> tuple[Alignment, float, bool]:
        """Alignment, scale, and whether the cosine of the two mean gradients is negative."""
        ages = range(len(self._parts))[::-1]
        past = pooled_parts(self._parts, [0.85**age for age in ages])
        gramian, weights = self._drawn(64)
        naive = float((weights[:, None] * gramian).sum())
        return weighted_alignment(gramian, weights), math.sqrt(past.kept_at(64)), naive < 0


def wandering(rng: np.random.Generator, probes: int) -> Iterator[tuple[Level, Drift | None]]:
    """Pass@1 wanders by about half a point around a flat mean; levels and increments are noisy."""
    truth = 0.0
    for t in range(probes):
        step = rng.normal(0, 0.002) - 0.1 * truth
        truth += step
        sd = 0.003 * math.exp(rng.normal(0, 0.3))
        drift = Drift(step + rng.normal(0, sd), sd, sd**2, 64, 0.0, usable=True)
        m = 512 if t == 0 else 64
        rates = np.clip(0.6 + truth + 0.28 * rng.normal(size=m), 0, 1)
        level = Level(float(rates.mean()), float(rates.var(ddof=1)), m)
        yield level, None if t == 0 else drift


def same_probe_rule(alarms_per_probe: float) -> Callable[[Alignment], bool]:
    """The negative control: the inner product in units of its own probe's standard error."""
    threshold, value = cusum_threshold(alarms_per_probe), 0.0

    def step(alignment: Alignment) -> bool:
        nonlocal value
        value = max(0.0, value - max(-3.0, min(3.0, alignment.z)) - 0.5)
        fired, value = value > threshold, 0.0 if value > threshold else value
        return fired

    return step


def false_alarms(quick: bool, figures: dict[str, Any]) -> bool:
    print("False alarms per look without a conflict, m = 64; afresh after each one, runs of 200\n")
    print("| null | nominal | all | alignment | level | same-probe z | naive cosine < 0 | looks |")
    print("|---|---|---|---|---|---|---|---|")
    good = True
    control_fails = False
    shipped = PassKGuardConfig().false_alarms
    for nominal in (shipped,) if quick else (1e-2, shipped):
        looks = round((15 if quick else 50) / nominal)
        for name in NAMES_QUICK if quick else NULLS_SHOWN:
            probes, other = NullProbes(name, 0), same_probe_rule(nominal)
            counts = dict.fromkeys(("all", "alignment", "level", "control", "naive"), 0)
            rng = np.random.default_rng(1)
            detector, track, run = ConflictDetector(nominal, 0.01), Pass1Track(), iter(())
            for i in range(looks):
                if i % 200 == 0:  # a run ends, the next one begins
                    probes.begin()
                    detector, track = ConflictDetector(nominal, 0.01), Pass1Track()
                    run = wandering(rng, 200)
                alignment, scale, negative = probes.probe()
                level, drift = next(run)
                now = track.update(level, drift, 10)
                found = LookEvidence(alignment, now, {}, scale, drift, 10)
                fired, _ = detector.update(found)
                for kind in fired:
                    counts[kind] += 1
                if fired:
                    counts["all"] += 1
                    detector = ConflictDetector(nominal, 0.01)
                counts["control"] += other(alignment)
                counts["naive"] += negative
            rates = {key: count / looks for key, count in counts.items()}
            bound = 2 * nominal + 2 * math.sqrt(nominal / looks)
            good &= rates["all"] <= bound
            control_fails |= rates["control"] > bound
            figures[f"{name} at {nominal:g}"] = rates | {"looks": looks}
            cells = " | ".join(f"{rates[key]:.2g}" for key in counts)
            print(f"| {name} | {nominal:g} | {cells} | {looks} |", flush=True)
    return good and control_fails


# Coverage ---------------------------------------------------------------------------------------


SHORT = 0.75  # the negative control: intervals that are a quarter too short


def inner_coverage(policy: CoinPolicy, m: int, repeats: int) -> list[float]:
    """Of ⟨∇J_4, ∇J_1⟩ by its interval, by a shorter one, and by ± 1.96 standard errors."""
    p, gradients = policy.gradients()
    contexts = len(p)
    truth = float((4 * (1 - p) ** 3 @ gradients / contexts) @ gradients.mean(0))
    hits = []
    for _ in range(repeats):
        rows, correct = policy.sampled(torch.randint(contexts, (m,)), 16)
        found = estimate_alignment(rows @ rows.T, correct.numpy(), 16, 4)
        low, error, high = (v - found.inner for v in (found.low, truth, found.high))
        short = SHORT * low < error < SHORT * high
        hits.append((low < error < high, short, abs(error) < 1.96 * found.se))
    return [float(share) for share in np.mean(hits, 0)]


def drift_coverage(contexts: int, tokens: int, m: int, runs: int, probes: int) -> list[float]:
    """Of single increments and of the change since the start, each with a shorter interval's.

    Over runs with a moving policy.
    """
    increments, changes = [], []
    for run in range(runs):
        policy = CoinPolicy(contexts, tokens, dim=16)
        rng = torch.Generator().manual_seed(run)
        levels = Levels(policy, 4, None)
        before = start = float(policy.success().detach().mean())
        for t in range(probes):
            batches = [_batch(policy, contexts, m) for _ in range(4 if t == 0 else 1)]
            scored = [levels.score(batch) for batch in batches]
            reading = levels.fresh(10 * t, batches, scored, reference=t == 0)
            now = float(policy.success().detach().mean())
            if reading.drift is not None and reading.drift.usable:
                drift, track = reading.drift, reading.track
                increments.append(abs(drift.change - (now - before)) / drift.se)
                changes.append(abs(track.change - (now - start)) / track.change_se)
            before = now
            with torch.no_grad():
                policy.theta += 0.05 * torch.randn(16, generator=rng, dtype=torch.float64)
    bounds = (1.96, SHORT * 1.96)
    return [float(np.mean(np.array(e) < b)) for e in (increments, changes) for b in bounds]


def _batch(policy: CoinPolicy, contexts: int, m: int) -> list:
    return policy.generate(None, torch.randint(contexts, (m,)).tolist(), 16)


def coverage(quick: bool, figures: dict[str, Any]) -> bool:
    print("\nCoverage of the 95 % intervals, n = 16, k = 4 (of the same, a quarter shorter)\n")
    print("| tokens | m | inner product | (± 1.96 s.e. only) | drift | change of pass@1 |")
    print("|---|---|---|---|---|---|")
    good = True
    contexts, repeats, probes = 500, 2000, 4 if quick else 6
    for tokens in (20,) if quick else (2, 100):
        torch.manual_seed(0)
        policy = CoinPolicy(contexts, tokens, dim=16)
        for m, runs in ((64, 150),) if quick else ((24, 100), (64, 100), (256, 75)):
            inner, short_inner, symmetric = inner_coverage(policy, m, repeats)
            moved = drift_coverage(contexts, tokens, m, runs, probes)
            drift, short_drift, change, short_change = moved
            print(
                f"| {tokens} | {m} | {inner:.3f} ({short_inner:.3f}) | {symmetric:.3f} "
                f"| {drift:.3f} ({short_drift:.3f}) | {change:.3f} ({short_change:.3f}) |",
                flush=True,
            )
            figures[f"coverage, {tokens} tokens, m = {m}"] = {
                **{"inner": inner, "symmetric": symmetric, "drift": drift, "change": change},
                **{"short": [short_inner, short_drift, short_change]},
            }
            for value, short, samples in (
                (inner, short_inner, repeats),
                (drift, short_drift, runs * (probes - 1)),
                (change, short_change, 2 * runs),  # those of one run hang together
            ):
                slack = 2 * math.sqrt(0.95 * 0.05 / samples)  # of the simulation itself
                good &= 0.925 - slack <= value <= 0.98 + slack
                good &= short < 0.925 - slack or m == 256  # where intervals are generous
    return good


# Population, not batch --------------------------------------------------------------------------


def population(quick: bool, figures: dict[str, Any]) -> bool:
    """Prompts that agree with themselves and quarrel with others."""
    print("\nCosine of the pass@8 with the pass@1 gradient: one fixed batch of 64, or the pool\n")
    print("| | mean | share with the right sign |\n|---|---|---|")
    rng = np.random.default_rng(0)
    batches, k = (100 if quick else 400), 8
    fixed, fresh = [], []
    for _ in range(batches):
        p, gradients = _quarrelling(rng, 64)
        weights = k * (1 - p) ** (k - 1)
        own, target = gradients.mean(0), (weights[:, None] * gradients).mean(0)
        fixed.append(float(own @ target / np.linalg.norm(own) / np.linalg.norm(target)))
        noisy = gradients + 0.02 * rng.normal(size=gradients.shape)
        found = weighted_alignment(noisy @ noisy.T, weights)
        fresh.append((found.inner, found.pass1_norm2, found.passk_norm2))
    p, gradients = _quarrelling(rng, 100_000)
    weights = k * (1 - p) ** (k - 1)
    own, target = gradients.mean(0), (weights[:, None] * gradients).mean(0)
    truth = float(own @ target / np.linalg.norm(own) / np.linalg.norm(target))
    inner, one, other = np.mean(fresh, 0)
    pooled = debiased_cosine(inner, one, other)
    wrong = np.mean(np.array(fixed) < 0)
    right = np.mean(np.array([f[0] for f in fresh]) < 0)
    print(f"| the pool (truth) | {truth:+.2f} | |")
    print(f"| a fixed batch, exact gradients | {np.mean(fixed):+.2f} | {wrong:.2f} |")
    print(f"| fresh batches, U-statistic | {pooled:+.2f} (pooled) | {right:.2f} |")
    figures["population"] = {"truth": truth, "fixed": float(np.mean(fixed)), "pooled": pooled}
    return bool(truth < 0 < np.mean(fixed) and pooled is not None and pooled < 0 and right > 0.9)


def _quarrelling(rng: np.random.Generator, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Hard prompts pull a shared direction the other way; most of a gradient is its own."""
    hard = rng.random(m) < 0.3
    p = np.where(hard, 0.08, 0.85)
    shared = np.where(hard, -1.0, 1.0)[:, None] * np.array([[0.1]])
    return p, np.concatenate([shared, 0.06 * rng.normal(size=(m, 200))], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    tables = {"false_alarms": false_alarms, "coverage": coverage, "population": population}
    parser.add_argument("--only", nargs="+", choices=list(tables), default=list(tables))
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    good = [tables[name](options.quick, figures) for name in options.only]
    if not options.quick and set(options.only) == set(tables):
        RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    if not all(good):
        sys.exit("out of bounds: see the tables")


if __name__ == "__main__":
    main()
