"""False alarms of the fused CUSUM, where there is no conflict, and how its alarms clear.

    python tests/benchmarks/fused_calibration.py            # four minutes on one core
    python tests/benchmarks/fused_calibration.py --quick    # two nulls, half a minute

The rule, written down plainly and over many runs at once::

    S <- max(0, S - x - 1/2)      x = clip((clip(u, ±4) + 2 d) / √5, ±c)      alarm where S > h

``u`` is the inner product over the standard error that *past* probes foretell at today's size,
``d`` the paired drift over the spread that noise and the run's own wandering give it; alone where
only one is at hand. Every null of ``tests/helpers/nulls.py`` meets every kind of drift whose mean
is 0. The figures are rates per look over the nominal one, after each alarm from zero again. "u
alone" is with and without its clip. Beside it the negative control: u over its own probe's error.

Exits with an error where the rule is above twice the nominal rate, u alone above 2.6 times, or the
control is not.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

import numpy as np
from factored import kernels, simulated
from nulls import NULLS

from passk_guard.detection.cusum import cusum_threshold

RESULTS = Path(__file__).parent / "results" / "fused_calibration.json"

PROMPTS, REFERENCE, LOOKS = 64, 512, 200
DECAY = 0.85  # of a past probe's weight in s, by its age
MOST = 20  # past probes that s rests on
ALONE = 2.6  # with a few hard prompts alone to tell, s itself is uncertain by a third
U_CLIP = 4.0  # heavy-tailed gradients: by itself the inner product takes two looks
WANDER = 0.002**2  # least variance of pass@1's own wandering in ten steps
PRIOR, FADES = 2.0, 0.95  # looks that this counts for at first; what a look keeps at the next


# Inner products ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Probes:
    """``(looks, runs)`` inner products, ``(1 + looks, runs, 3)`` parts, the reference's first."""

    inner: np.ndarray
    own: np.ndarray
    parts: np.ndarray


def probes(name: str, runs: int, seed: int) -> Probes:
    rng = np.random.default_rng(seed)
    reference = [kernels(*b).parts for b in simulated(NULLS[name], rng, runs, REFERENCE)]
    looks = [kernels(*b) for b in simulated(NULLS[name], rng, runs * LOOKS, PROMPTS)]
    parts = np.concatenate([got.parts for got in looks]).reshape(LOOKS, runs, 3)
    return Probes(
        np.concatenate([got.inner for got in looks]).reshape(LOOKS, runs),
        np.concatenate([got.kept for got in looks]).reshape(LOOKS, runs),
        np.concatenate([np.concatenate(reference)[None], parts]),
    )


def foretold(found: Probes, window: int) -> np.ndarray:
    """``(looks, runs)`` s of each look, from the parts of the ``window`` probes before it.

    Weights are ``DECAY ** age`` times the prompts; a variance is kept from falling below half the
    jackknife's, as in ``VarianceParts.kept_at``.
    """
    m, out = PROMPTS, np.empty_like(found.inner)
    for t in range(len(out)):
        ages = range(min(window, t + 1))
        shares = np.array([DECAY**a * (REFERENCE if a == t else PROMPTS) for a in ages])
        past = np.stack([found.parts[t - a] for a in ages])
        shared, square, theta2 = np.moveaxis(np.tensordot(shares / shares.sum(), past, 1), -1, 0)
        one, two = shared - theta2, square - theta2
        plain = (4 * (m - 2) * one + 2 * two) / (m * (m - 1))
        jackknife = 4 * ((m - 4) * one + two) / (m * (m - 2))
        out[t] = np.sqrt(np.maximum(plain, jackknife / 2))
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
        moves = rng.random((runs, PROMPTS)) < 0.05
        own = sign * np.where(moves, 0.095, -0.005) + 0.01 * rng.normal(size=(runs, PROMPTS))
        change[t], added[t] = own.mean(1), own.var(1, ddof=1) / PROMPTS
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
}


def standardised(drift: Drifts) -> np.ndarray:
    """``(looks, runs)`` d; a look is ten steps."""
    change, added = drift
    total, count = np.full(change.shape[1], PRIOR * WANDER), PRIOR
    out = np.empty_like(change)
    for t in range(len(change)):
        out[t] = change[t] / np.sqrt(added[t] + np.maximum(WANDER, total / count))
        if t:  # half the squared difference of neighbours: a trend is no wandering
            excess = ((change[t] - change[t - 1]) ** 2 - added[t] - added[t - 1]) / 2
            total, count = FADES * total + excess, FADES * count + 1
    return out


# The rule ---------------------------------------------------------------------------------------


def fused(u: np.ndarray, d: np.ndarray) -> np.ndarray:
    return (u + 2 * d) / math.sqrt(5)


def by_turns(u: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Every third look is a probe, the others score stored rollouts again."""
    probe = np.arange(len(u)) % 3 == 0
    return np.where(probe[:, None], fused(u, d), d)


Rule = Callable[[np.ndarray, np.ndarray], np.ndarray]


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


def looks_to_clear(
    ceiling: float, mean: float, runs: int = 20_000, horizon: int = 400
) -> np.ndarray:
    """Looks from an alarm to S = 0, while x is normal with that mean and S is held below it."""
    rng = np.random.default_rng(0)
    S, out = np.full(runs, ceiling), np.full(runs, horizon)
    for t in range(1, horizon):
        S = np.clip(S - np.clip(rng.normal(mean, 1, runs), -6, 6) - 0.5, 0, ceiling)
        out[(S == 0) & (out == horizon)] = t
    return out


# Tables -----------------------------------------------------------------------------------------


def rates(quick: bool, figures: dict[str, dict[str, float]]) -> bool:
    names = ["orthogonal, rank 2, weak", "rollouts, strong"] if quick else list(NULLS)
    drifts = ["wandering, 64"] if quick else list(DRIFTS)
    runs = 250 if quick else 300
    rng = np.random.default_rng(5)
    d = {name: standardised(DRIFTS[name](rng, runs)) for name in drifts}
    worst = {"fused": 0.0, "alone": 0.0, "control": 0.0}
    print("Alarms per look over the nominal rate: least to most over kinds of drift\n")
    print(
        "| null | nominal | fused | u not clipped | s of 8 | s of 1 | by turns | u alone | own s |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name in names:
        few = 100 if name == "isotropic" else runs
        found = probes(name, few, 1)
        raw = {window: found.inner / foretold(found, window) for window in (1, 8, MOST)}
        u = {window: np.clip(values, -U_CLIP, U_CLIP) for window, values in raw.items()}
        own = found.inner / np.sqrt(found.own)
        for nominal in (1e-2,) if quick else (1e-2, 1e-3):

            def over(
                values: np.ndarray, rule: Rule = fused, nominal: float = nominal
            ) -> list[float]:
                return [alarms(rule(values, d[k][:, : values.shape[1]]), nominal) for k in drifts]

            row = {
                "fused": over(u[MOST]),
                "u not clipped": over(raw[MOST]),
                "s of 8": over(u[8]),
                "s of 1": over(u[1]),
                "by turns": over(u[MOST], by_turns),
                "u alone": [alarms(u[MOST], nominal), alarms(raw[MOST], nominal)],
                "control": [alarms(own, nominal)],
            }
            worst["fused"] = max(worst["fused"], *row["fused"], *row["by turns"])
            worst["alone"] = max(worst["alone"], row["u alone"][0])
            worst["control"] = max(worst["control"], *row["control"])
            figures[f"{name} at {nominal:g}"] = {k: [min(v), max(v)] for k, v in row.items()}
            cells = (
                f"{min(v):.2f} to {max(v):.2f}" if len(v) > 1 else f"{v[0]:.2f}"
                for v in row.values()
            )
            print(f"| {name} | {nominal:g} | {' | '.join(cells)} |", flush=True)
            if not quick:
                figures[f"{name} at {nominal:g}"]["by drift"] = dict(
                    zip(drifts, row["fused"], strict=True)
                )
    print("\n| drift alone | 1e-2 | 1e-3 |\n|---|---|---|")
    for name in drifts:
        found_rates = [alarms(d[name], nominal) for nominal in (1e-2, 1e-3)]
        figures[f"drift alone, {name}"] = found_rates
        print(f"| {name} | {found_rates[0]:.2f} | {found_rates[1]:.2f} |")
    return worst["fused"] < 2 < worst["control"] and worst["alone"] < ALONE


def clearing(quick: bool, figures: dict[str, dict[str, float]]) -> bool:
    print("\nLooks until an alarm clears, by the ceiling of S\n")
    print("| ceiling | mean of x 0 | share within 10 looks at -1 | at -2 | at -3 |")
    print("|---|---|---|---|---|")
    for ceiling in (1.0, 1.5, 2.0, 2.5, 3.0, 4.0):
        calm = float(looks_to_clear(ceiling, 0).mean())
        wrong = [float((looks_to_clear(ceiling, mu) <= 10).mean()) for mu in (-1, -2, -3)]
        figures[f"ceiling {ceiling:g}"] = {"calm": calm, "wrong": wrong}
        print(f"| {ceiling:g} | {calm:.1f} | " + " | ".join(f"{v:.4f}" for v in wrong) + " |")
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    figures: dict = {}
    good = [rates(options.quick, figures), clearing(options.quick, figures)]
    if not options.quick:
        RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    if not all(good):
        sys.exit("out of bounds: see the tables")


if __name__ == "__main__":
    main()
