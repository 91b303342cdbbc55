"""False alarms of the fused CUSUM, where there is no conflict.

    python tests/benchmarks/fused_calibration.py            # five minutes on one core
    python tests/benchmarks/fused_calibration.py --quick    # two nulls, half a minute

Every panel of ``tests/helpers/nulls.py`` meets every kind of drift with mean 0. ``u`` is by what
``KeptBatches`` foretells, ``d`` by ``DriftScale``, and the rule is that of ``FusedCusum``, written
over many runs at once. The figures are rates per look over the nominal one, after each alarm from
zero again. Beside them two negative controls: u as if looks at the same prompts had no error in
common, and u over its own look's error.

Exits with an error where the rule is above three times the nominal rate, or a control is not.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import bench

# isort: split
import numpy as np
from nulls import PANELS, Panel, by_trainer, panel_batches

from passk_guard.detection.cusum import cusum_threshold
from passk_guard.detection.drift_scale import DriftScale
from passk_guard.statistics.alignment import symmetric_kernel
from passk_guard.statistics.kept_batches import KeptBatches
from passk_guard.statistics.track import Drift, Fix, PairedTrack
from passk_guard.statistics.variance import pooled_parts, variance_parts

PROMPTS, LOOKS = 128, 100
TILES = 10  # runs of drift that each run of inner products meets
U_CLIP = 4.0
BOUND = 3.0  # the strong panels of rollouts, with drift of heavy tails or that wanders much


# Inner products ---------------------------------------------------------------------------------


def opposed(panel: Panel, runs: int, seed: int, prompts: int = PROMPTS) -> np.ndarray:
    """``(3, LOOKS, runs)`` u: the shipped one, without what errors have in common, by its own s."""
    rng, out = np.random.default_rng(seed), np.full((3, LOOKS, runs), np.nan)
    for run in range(runs):
        batches = panel_batches(panel, rng, prompts)
        kept, past = KeptBatches([next(batches)]), []
        for t in range(LOOKS):
            batch = next(batches)
            H = symmetric_kernel(batch.gramian, by_trainer(batch))
            inner, parts = H.sum() / (prompts * (prompts - 1)), variance_parts(H)
            foretold = kept.foretold(by_trainer, batch.rollouts)
            if foretold is not None:
                pooled = pooled_parts(past, [0.85**age for age in range(len(past))][::-1])
                s = [math.sqrt(one.kept_at(prompts)) for one in (pooled, parts)]
                out[:, t, run] = (inner - foretold.mean) / foretold.se, *(inner / one for one in s)
            kept, past = kept.plus(batch), [*past, parts][-10:]
    return out


# Drift ------------------------------------------------------------------------------------------

Drifts = tuple[np.ndarray, np.ndarray]  # (looks, runs): increments, and the variance each adds


def walked(rng: np.random.Generator, steps: np.ndarray) -> np.ndarray:
    """Increments of a level that is pulled back to its mean."""
    truth, out = np.zeros(steps.shape[1]), np.empty_like(steps)
    for t, step in enumerate(steps):
        out[t] = step - 0.1 * truth
        truth = truth + out[t]
    return out


def estimated(
    rng: np.random.Generator, truth: np.ndarray, se: float, prompts: int, tail: float | None = None
) -> Drifts:
    """Its mean and variance over prompts, the truth being the same for all of them."""
    change, added = np.empty_like(truth), np.empty_like(truth)
    for t in range(len(truth)):
        size = (truth.shape[1], prompts)
        if tail is None:
            own = rng.normal(size=size)
        else:
            own = rng.standard_t(tail, size=size) * math.sqrt((tail - 2) / tail)
        own = own * se * math.sqrt(prompts)
        change[t] = truth[t] + own.mean(1)
        added[t] = own.var(1, ddof=1) / prompts
    return change, added


def rare_movers(rng: np.random.Generator, runs: int, sign: float) -> Drifts:
    """Of 64 prompts about three move much, the others slightly the other way."""
    change, added = np.empty((LOOKS, runs)), np.empty((LOOKS, runs))
    for t in range(LOOKS):
        moves = rng.random((runs, 64)) < 0.05
        own = sign * np.where(moves, 0.095, -0.005) + 0.01 * rng.normal(size=(runs, 64))
        change[t], added[t] = own.mean(1), own.var(1, ddof=1) / 64
    return change, added


def lasting(rng: np.random.Generator, runs: int) -> Drifts:
    """Half of an estimate's error is that of prompts which are scored again and again.

    Ten looks long, then the prompts are others; what each adds to the variance of the sum is known.
    """
    age = (np.arange(LOOKS) % 10)[:, None]
    kept = np.repeat(rng.normal(size=(LOOKS // 10, runs)), 10, 0)
    own = 0.003 * math.sqrt(0.5) * (kept + rng.normal(size=(LOOKS, runs)))
    added = 0.003**2 * (0.5 * (2 * age + 1) + 0.5) * np.ones((1, runs))
    return walked(rng, rng.normal(0, 0.002, (LOOKS, runs))) + own, added


def _steps(rng: np.random.Generator, runs: int, sd: float) -> np.ndarray:
    return walked(rng, rng.normal(0, sd, (LOOKS, runs)))


def followed(rng: np.random.Generator, runs: int) -> Drifts:
    """What the filter moves by where no increments are usable: 512 prompts, 2 rollouts a look."""
    out = np.empty((2, LOOKS, runs))
    for run, moves in enumerate(_steps(rng, runs, 0.002).T):
        first = 0.005 * rng.normal()
        track = PairedTrack(0.6, 0.005**2)
        for t, truth in enumerate(moves.cumsum()):
            drift = track.update(None, Fix(truth - first + 0.012 * rng.normal(), 0.012**2), 10)
            out[:, t, run] = drift.change, drift.variance
    return out[0], out[1]


DRIFTS: dict[str, Callable[[np.random.Generator, int], Drifts]] = {
    "still, 64 prompts": lambda g, r: estimated(g, np.zeros((LOOKS, r)), 0.004, 64),
    "wandering, 64": lambda g, r: estimated(g, _steps(g, r, 0.002), 0.003, 64),
    "wandering, 576": lambda g, r: estimated(g, _steps(g, r, 0.002), 0.001, 576),
    "wandering more": lambda g, r: estimated(g, _steps(g, r, 0.006), 0.002, 64),
    "heavy tails": lambda g, r: estimated(
        g, walked(g, 0.002 * g.standard_t(3, (LOOKS, r))), 0.003, 64, tail=3.0
    ),
    "rare gains": lambda g, r: rare_movers(g, r, 1.0),
    "rare losses": lambda g, r: rare_movers(g, r, -1.0),
    "the same prompts again": lasting,
    "the filter's own": followed,
}


def standardised(drift: Drifts) -> np.ndarray:
    """``(looks, runs)`` d; a look is ten steps."""
    out = np.empty_like(drift[0])
    for run, seen in enumerate(zip(*(values.T.tolist() for values in drift), strict=True)):
        scale = DriftScale()
        out[:, run] = [scale(Drift(*one), 10) for one in zip(*seen, strict=True)]
    return out


# The rule ---------------------------------------------------------------------------------------


def fused(u: np.ndarray, d: np.ndarray) -> np.ndarray:
    """X, of whichever of the two is no NaN."""
    known = np.isfinite(u) + 4.0 * np.isfinite(d)
    return (np.nan_to_num(np.clip(u, -U_CLIP, U_CLIP)) + 2 * np.nan_to_num(d)) / np.sqrt(known)


def by_turns(u: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Every third look is a probe, the others score stored rollouts again."""
    spread = np.full_like(d, np.nan)
    spread[::3] = u[: len(spread[::3])]
    return fused(spread, d)


def alarms(x: np.ndarray, nominal: float, clip: float | None = None) -> float:
    """Alarms per look, over the nominal rate. A clip of ``None`` is max(6, h + 1)."""
    h = cusum_threshold(nominal)
    c = max(6.0, h + 1) if clip is None else clip
    score, count = np.zeros(x.shape[1]), 0
    for value in x:
        score = np.maximum(0, score - np.clip(value, -c, c) - 0.5)
        fired = score > h
        count += int(fired.sum())
        score[fired] = 0
    return count / x.size / nominal


def rates(quick: bool, figures: dict[str, dict[str, float]]) -> bool:
    names = ["panel, rank 40, strong", "panel, strong"] if quick else list(PANELS)
    drifts = ["wandering, 64"] if quick else list(DRIFTS)
    runs = 30 if quick else 120
    rng = np.random.default_rng(5)
    d = {name: standardised(DRIFTS[name](rng, TILES * runs)) for name in drifts}
    worst = {"fused": 0.0, "by turns": 0.0, "nothing in common": 0.0, "own s": 0.0}
    print("Alarms per look over the nominal rate: least to most over kinds of drift\n")
    print("| null | nominal | fused | by turns | u alone | nothing in common | own s |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        u, apart, own = np.tile(opposed(PANELS[name], runs, 1), TILES)
        for nominal in (1e-2,) if quick else (1e-2, 1e-3):
            row = {
                what: [alarms(rule(values, d[kind]), nominal) for kind in drifts]
                for what, rule, values in (
                    ("fused", fused, u),
                    ("by turns", by_turns, u),
                    ("u alone", lambda u, d: np.clip(u[1:], -U_CLIP, U_CLIP), u),
                    ("nothing in common", fused, apart),
                    ("own s", fused, own),
                )
            }
            worst = {what: max(most, *row[what]) for what, most in worst.items()}
            figures[f"{name} at {nominal:g}"] = {
                **{what: [min(v), max(v)] for what, v in row.items()},
                "by drift": dict(zip(drifts, row["fused"], strict=True)),
            }
            cells = " | ".join(f"{min(v):.2f} to {max(v):.2f}" for v in row.values())
            print(f"| {name} | {nominal:g} | {cells} |", flush=True)
    print("\n| drift alone | 1e-2 | 1e-3 |\n|---|---|---|")
    for name in drifts:
        found = [alarms(d[name], nominal) for nominal in (1e-2, 1e-3)]
        figures[f"drift alone, {name}"] = found
        print(f"| {name} | {found[0]:.2f} | {found[1]:.2f} |")
    controls = [worst.pop(name) for name in ("nothing in common", "own s")]
    return max(worst.values()) < BOUND < min(controls)


def main() -> None:
    quick = bench.quick(__doc__)
    figures: dict = {}
    good = rates(quick, figures)
    if not quick:
        bench.write("fused_calibration.json", figures)
    if not good:
        sys.exit("out of bounds: see the tables")


if __name__ == "__main__":
    main()
