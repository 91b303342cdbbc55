"""Are the error rates what they are said to be? Simulations with a known truth, as tables.

    python tests/benchmarks/calibration.py            # seven minutes on one core
    python tests/benchmarks/calibration.py --quick    # what CI runs, under a minute

* False alarms per look where there is no conflict, at the shipped nominal rate and at a higher one,
  beside the rule that studentises by the same look's error. The parts apart, on every kind of
  null: ``fused_calibration.py``; the test of the reference: ``first_calibration.py``.
* False alarms of the level where the pool has lost just what is tolerated, as looks' own rollouts
  tell it. Where a tenth of the prompts is lost and a tenth won the reference's prompts are no pool.
* Coverage of the 95 % intervals of the inner product, of the drift and of the change of pass@1, on
  a policy whose pass@1 is known exactly at any length (``tests/coins.py``).

Exits with an error where a figure is out of bounds, and where a negative control is not: the rule
beside the alarms, the level without the pool's own error, and intervals that are a quarter shorter.
The full form leaves its figures in ``results/calibration.json``.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import bench

# isort: split
import numpy as np
import torch
from coins import CoinPolicy
from nulls import PANELS, by_trainer, panel_batches

from passk_guard import PassKGuardConfig
from passk_guard.detection.cusum import FusedCusum, cusum_threshold
from passk_guard.detection.detector import LookEvidence
from passk_guard.detection.episodes import ConflictDetector
from passk_guard.detection.level import level_threshold
from passk_guard.rollouts.scores import score
from passk_guard.statistics import levels as levels_module
from passk_guard.statistics.alignment import Alignment, estimate_alignment, weighted_alignment
from passk_guard.statistics.kept_batches import Foretold, KeptBatches
from passk_guard.statistics.levels import Levels
from passk_guard.statistics.lost_prompts import ChangedPrompts
from passk_guard.statistics.track import Drift, Fix, Increment, PairedTrack, Track

SHOWN = [
    "panel, rank 2, vanishing",
    "panel, rank 40, strong",
    "panel, rare hard",
    "panel, heavy tails",
    "panel, weak",
    "panel, strong",
]
SHIPPED = PassKGuardConfig().false_alarms
PROMPTS, LOOKS = 128, 100

Look = tuple[Alignment, Foretold | None, bool]


def without_conflict(name: str, rng: np.random.Generator) -> Iterator[Look]:
    """Alignment, what past looks foretell, and whether the mean gradients' cosine is negative."""
    batches = panel_batches(PANELS[name], rng, PROMPTS)
    kept = KeptBatches([next(batches)])
    for _, batch in zip(range(LOOKS), batches, strict=False):
        weights = by_trainer(batch)
        naive = float((weights[:, None] * batch.gramian).sum())
        foretold = kept.foretold(by_trainer, batch.rollouts)
        yield weighted_alignment(batch.gramian, weights), foretold, naive < 0
        kept = kept.plus(batch)


def wandering(rng: np.random.Generator) -> Iterator[tuple[Track, Drift]]:
    """Pass@1 wanders by about half a point around a flat mean; increments and fixes are noisy."""
    truth, first, track = 0.0, rng.normal(0, 0.005), PairedTrack(0.6, 0.005**2)
    while True:
        step = rng.normal(0, 0.002) - 0.1 * truth
        truth += step
        sd = 0.003 * math.exp(rng.normal(0, 0.3))
        told = Increment(step + rng.normal(0, sd), sd**2, 0.0, sd**2)
        drift = track.update(told, Fix(truth - first + rng.normal(0, 0.012), 0.012**2), 10)
        assert drift is not None
        yield track.now(), drift


def false_alarms(quick: bool, figures: dict[str, Any]) -> bool:
    print(f"False alarms per look without a conflict, m = {PROMPTS}; afresh after each one\n")
    print("| null | nominal | all | alignment | level | same-look z | naive cosine < 0 | looks |")
    print("|---|---|---|---|---|---|---|---|")
    good, control_fails, rng = True, False, np.random.default_rng(0)
    runs, tracks = (20, 4) if quick else (100, 5)  # each run's gradients meet some tracks
    for name in ["panel, rank 40, strong"] if quick else SHOWN:
        panels = [list(without_conflict(name, rng)) for _ in range(runs)] * tracks
        for nominal in (SHIPPED,) if quick else (1e-2, SHIPPED):
            counts = dict.fromkeys(("all", "alignment", "level", "control", "naive"), 0)
            for panel in panels:
                detector = ConflictDetector(nominal, 0.01)
                control = FusedCusum(cusum_threshold(nominal))
                for (alignment, foretold, naive), (now, drift) in zip(
                    panel, wandering(rng), strict=False
                ):
                    found = LookEvidence(alignment, now, {}, foretold, drift, 10)
                    fired, _ = detector.update(found)
                    for kind in fired:
                        counts[kind] += 1
                    if fired:
                        counts["all"] += 1
                        detector = ConflictDetector(nominal, 0.01)
                    control.update(alignment.z, None)
                    if control.open:
                        counts["control"] += 1
                        control = FusedCusum(control.threshold)
                    counts["naive"] += naive
            looks = LOOKS * len(panels)
            rates = {key: count / looks for key, count in counts.items()}
            bound = 2 * nominal + 2 * math.sqrt(nominal / looks)
            good &= rates["all"] <= bound
            control_fails |= rates["control"] > bound
            figures[f"{name} at {nominal:g}"] = rates | {"looks": looks}
            cells = " | ".join(f"{rates[key]:.2g}" for key in counts)
            print(f"| {name} | {nominal:g} | {cells} | {looks} |", flush=True)
    return good and control_fails


# The level --------------------------------------------------------------------------------------


TOLERANCE = 0.01
NOMINAL = (1e-2, 1e-3)
Rates = np.ndarray  # of right rollouts, one per prompt of the pool
Draw = Callable[[np.random.Generator, Rates], Rates]


def lost(before: Rates, after: Rates) -> Rates:
    """Shifted so that the pool has lost just what is tolerated."""
    for _ in range(50):
        after = np.clip(after + before.mean() - TOLERANCE - after.mean(), 0, 1)
    return after


def jittering(rng: np.random.Generator, p: Rates) -> Rates:
    """Anew at every look."""
    return lost(p, p + 0.15 * rng.normal(size=len(p)))


def rare_flips(rng: np.random.Generator, p: Rates) -> Rates:
    """One prompt in two hundred, of those that are easiest."""
    after = p.copy()
    after[rng.permutation(np.argsort(p)[-len(p) // 4 :])[: len(p) // 200]] = 0
    return lost(p, after)


def tenths(rng: np.random.Generator, p: Rates) -> Rates:
    """One prompt in ten is lost, one is won."""
    after, order = p.copy(), rng.permutation(len(p))
    after[order[: len(p) // 10]], after[order[-(len(p) // 10) :]] = 0, 1
    return lost(p, after)


def mixed(rng: np.random.Generator, p: Rates) -> Rates:
    return rng.beta(1.0, 0.7, size=len(p))


# By name: pool, prompts, rollouts of each at a look; rates at the start, from zeros; at a look.
LARGE = (4096, 512, 2)
POPULATIONS: dict[str, tuple[tuple[int, int, int], Draw, Draw]] = {
    "still": (LARGE, mixed, lambda _, p: lost(p, p)),
    "jittering": (LARGE, mixed, jittering),
    "rare flips": (LARGE, mixed, rare_flips),
    "a tenth lost, a tenth won": (LARGE, mixed, tenths),
    "16 prompts in all": ((16, 16, 12), mixed, lambda _, p: lost(p, p)),
    "64 prompts in all": ((64, 64, 12), mixed, lambda _, p: lost(p, p)),
    "64 in all, tenths": ((64, 64, 12), mixed, tenths),
    "all right at first": (LARGE, lambda _, p: p + 1, lambda _, p: lost(p, p)),
    "always right": (LARGE, lambda _, p: p + 1, lambda _, p: p),
    "never right": (LARGE, lambda _, p: p, lambda _, p: p),
}


def losses(name: str, rng: np.random.Generator, looks: int = 20) -> np.ndarray:
    """``(looks, 2)`` the loss beyond the tolerance in standard errors, and in the panel's own."""
    (pool, m, each), start, change = POPULATIONS[name]
    before, out = start(rng, np.zeros(pool)), []
    now, rows = change(rng, before), rng.choice(pool, m, replace=False)

    def groups(p: Rates, n: int) -> list[Any]:
        right = rng.binomial(n, p[rows]).tolist()
        return [SimpleNamespace(row=i, correct=c, n=n) for i, c in enumerate(right)]

    levels, nothing = Levels(None, None, pool={None: pool}), [None] * m
    levels.begin(0, groups(before, 12), nothing, np.ones(m))
    levels._reference = None  # stored rollouts say nothing
    for t in range(1, looks + 1):
        now = jittering(rng, before) if change is jittering else now
        track = levels.look(10 * t, groups(now, each), nothing).track
        assert levels._last is not None
        levels._last.measured = True
        own = levels._tracks[None].now().change_se
        out.append([(track.change + TOLERANCE) / se for se in (track.change_se, own)])
    return np.array(out)


def level_alarms(quick: bool, figures: dict[str, Any]) -> bool:
    print("\nAlarms of the level per look over the nominal rate, where the loss is the tolerance\n")
    print("| pool | at 1e-2 | at 1e-3 | the same without the pool's own error | sd of z |")
    print("|---|---|---|---|---|")
    # Naming prompts takes most of the time, and no part in the level.
    none = ChangedPrompts((), (), 0, 0, 0, 0.05, 0.1)
    levels_module.changed_prompts = lambda *_: none
    good = True
    for name in ("still", "a tenth lost, a tenth won") if quick else POPULATIONS:
        rng = np.random.default_rng(0)
        z = np.stack([losses(name, rng) for _ in range(30 if quick else 300)])
        bars = [(-level_threshold(nominal), nominal) for nominal in NOMINAL]
        shipped, own = (
            [float((z[..., i] < bar).mean() / nominal) for bar, nominal in bars] for i in (0, 1)
        )
        figures[f"level, {name}"] = {"rates": shipped, "without the pool": own}
        cells = f"{shipped[0]:.2f} | {shipped[1]:.2f} | {own[0]:.2f}, {own[1]:.2f}"
        print(f"| {name} | {cells} | {z[..., 0].std():.2f} |", flush=True)
        # Where few prompts tell it is rarer, and where nothing moves there is no loss.
        exempt = quick or POPULATIONS[name][0] != LARGE or name in ("always right", "never right")
        good &= max(shipped) < 2 and (exempt or shipped[0] > 0.2)
        good &= name != "a tenth lost, a tenth won" or min(own) > 2
    return good


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


def drift_coverage(contexts: int, tokens: int, m: int, runs: int, looks: int) -> list[float]:
    """Of single increments and of the change since the start, each with a shorter interval's.

    Over runs with a moving policy; the truth is the pool's.
    """
    increments, changes = [], []
    for run in range(runs):
        policy = CoinPolicy(contexts, tokens, dim=16)
        rng = torch.Generator().manual_seed(run)
        levels = Levels(policy, None, pool={None: contexts})
        ids = torch.randperm(contexts, generator=rng)[:m]
        groups = policy.generate(None, ids.tolist(), 12)
        levels.begin(0, groups, score(policy, groups), np.ones(m))
        before = start = policy.success().detach()
        for t in range(1, looks):
            with torch.no_grad():
                policy.theta += 0.05 * torch.randn(16, generator=rng, dtype=torch.float64)
            assert levels.counts is not None
            right, n = levels.counts.recent()
            groups = [
                replace(group, baseline=float(share))
                for group, share in zip(
                    policy.generate(None, ids.tolist(), 3), right / n, strict=True
                )
            ]
            reading, now = (
                levels.look(10 * t, groups, score(policy, groups)),
                policy.success().detach(),
            )
            drift, track = reading.drift, reading.track
            if drift is not None and drift.rescored:
                increments.append(abs(drift.change - float((now - before).mean())) / drift.se)
            changes.append(abs(track.change - float((now - start).mean())) / track.change_se)
            before = now
    bounds = (1.96, SHORT * 1.96)
    return [float(np.mean(np.array(e) < b)) for e in (increments, changes) for b in bounds]


def coverage(quick: bool, figures: dict[str, Any]) -> bool:
    print("\nCoverage of the 95 % intervals, k = 4 (of the same, a quarter shorter)\n")
    print("| tokens | m | inner product | (± 1.96 s.e. only) | drift | change of pass@1 |")
    print("|---|---|---|---|---|---|")
    good = True
    contexts, repeats, looks = 500, 2000, 4 if quick else 6
    for tokens in (20,) if quick else (2, 100):
        torch.manual_seed(0)
        policy = CoinPolicy(contexts, tokens, dim=16)
        for m, runs in ((64, 150),) if quick else ((24, 100), (64, 100), (256, 40)):
            inner, short_inner, symmetric = inner_coverage(policy, m, repeats)
            moved = drift_coverage(contexts, tokens, m, runs, looks)
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
                (drift, short_drift, runs * (looks - 1)),
                (change, short_change, 2 * runs),  # those of one run hang together
            ):
                slack = 2 * math.sqrt(0.95 * 0.05 / samples)  # of the simulation itself
                good &= 0.925 - slack <= value <= 0.98 + slack
                good &= short < 0.925 - slack or m == 256  # where intervals are generous
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    tables = {"false_alarms": false_alarms, "level": level_alarms, "coverage": coverage}
    parser.add_argument("--only", nargs="+", choices=list(tables), default=list(tables))
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    good = [tables[name](options.quick, figures) for name in options.only]
    if not options.quick and set(options.only) == set(tables):
        bench.write("calibration.json", figures)
    if not all(good):
        sys.exit("out of bounds: see the tables")


if __name__ == "__main__":
    main()
