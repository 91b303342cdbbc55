"""What `passk-guard compare` sees of a change, beside two means compared as if unpaired.

    python tests/benchmarks/compare_power.py            # three minutes on one core
    python tests/benchmarks/compare_power.py --quick    # ten seconds, for a look

Two files are simulated, and both methods look at the same ones. The unpaired test is the one that
lm-evaluation-harness ships as its model comparator: the difference of two accuracies
over the root of the sum of their squared standard errors, each ``sd / √prompts``, against 1.96.

First table: how often a change is seen, of pass@1 that fell by 0, .5, 1, 2 and 5 points, for
several ways in which two checkpoints are related. At 0 points what is seen is false.
Second: prompts lost, how many of those that are named are wrong, and how many are found, beside
a rule over all prompts and candidates by p-values that are not conditional.

Exits with an error where a false share is surely above 5 %, or pairing does not help.
The full form leaves its figures in ``results/compare_power.json``.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import bench

# isort: split
import numpy as np
from barnard import loss_p_values

from passk_guard.statistics.lost_prompts import changed_prompts, discoveries
from passk_guard.statistics.mean_interval import mean_intervals

RESULTS = "compare_power.json"
POINTS = (0.0, 0.005, 0.01, 0.02, 0.05)
SIZES = ((500, 1), (500, 8), (500, 64), (2000, 8))  # prompts and rollouts
LEVEL, MARGIN = 0.05, 0.1
_SIZE = 20_000  # prompts of a population


def shifted(p: np.ndarray, fall: float) -> np.ndarray:
    """Every prompt a little harder, so that the mean falls by that much."""
    logit = np.log(p / (1 - p))
    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        too_far = float(np.mean(p - 1 / (1 + np.exp(middle - logit)))) > fall
        low, high = (low, middle) if too_far else (middle, high)
    return np.asarray(p if fall == 0 else 1 / (1 + np.exp(low - logit)))


def related(kind: str, fall: float) -> tuple[np.ndarray, np.ndarray]:
    """pass@1 of each prompt of the population, before and after; the mean fell by ``fall``."""
    rng = np.random.default_rng(3)
    p = rng.beta(0.5, 0.5, _SIZE).clip(1e-4, 1 - 1e-4)
    place = rng.permutation(_SIZE) / _SIZE
    if kind == "every prompt a little":
        return p, shifted(p, fall)
    if kind == "some prompts wholly":
        after = p.copy()
        ranked = np.argsort(place)
        upto = int(np.searchsorted(np.cumsum(p[ranked]) / _SIZE, fall))
        after[ranked[:upto]] = 0.0
        return p, after
    if kind == "a fifth turned over":
        other = np.where(place < 0.2, p[rng.permutation(_SIZE)], p)
    else:
        other = rng.permutation(p)
    # Shifted both ways, so that the mean falls by no more than asked.
    return shifted(p, max(p.mean() - other.mean(), 0)), shifted(
        other, max(other.mean() - p.mean(), 0) + fall
    )


KINDS = ("every prompt a little", "some prompts wholly", "a fifth turned over", "unrelated")


def seen(kind: str, fall: float, m: int, n: int, draws: int) -> dict[str, float]:
    """Shares of draws in which each method sees a change, and the right exit code is given."""
    rng = np.random.default_rng([m, n, round(1000 * fall), KINDS.index(kind)])
    before, after = related(kind, fall)
    at = rng.integers(_SIZE, size=(draws, m))
    first, last = rng.binomial(n, before[at]) / n, rng.binomial(n, after[at]) / n
    low, high = mean_intervals(last - first, -1.0, 1.0)
    errors = (first.var(1, ddof=1) + last.var(1, ddof=1)) / m
    z = (last - first).mean(1) / np.sqrt(errors)
    return {
        "correlation": float(np.corrcoef(before, after)[0, 1]),
        "truth": float(np.mean(after - before)),
        "paired": float(((high < 0) | (low > 0)).mean()),
        "unpaired": float((np.abs(z) > 1.96).mean()),
        "code 0": float((low > -0.01).mean()),
        "code 1": float((high < -0.01).mean()),
    }


def lost(kind: str, n: int | None, draws: int) -> dict[str, float]:
    """Share of the named that is wrong, and of the lost that is found, by three rules."""
    rng = np.random.default_rng([n or 0, len(kind)])
    m, gone = {"all at the margin": (400, 40), "most at 0 or 1": (5000, 100)}.get(kind, (1000, 50))
    figures: dict[str, list[float]] = {}
    for _ in range(draws):
        before = np.full(m, 0.7)
        after = before - MARGIN
        if kind == "most at 0 or 1":
            before = after = (rng.random(m) < 0.6) * 1.0
        elif kind == "spread out":
            before = after = rng.random(m)
        before, after = before.copy(), after.copy()
        before[:gone], after[:gone] = 0.8, 0.2
        rollouts = np.full((2, m), n) if n else rng.integers(4, 33, size=(2, m))
        c, d = rng.binomial(rollouts[0], before), rng.binomial(rollouts[1], after)
        named = {"candidates": changed_prompts(c, rollouts[0], d, rollouts[1]).lost}
        if n:
            values = loss_p_values(n, n, MARGIN)[c, d]
            seem = np.flatnonzero(c - d > MARGIN * n)
            named["all prompts"] = tuple(discoveries(values.tolist(), LEVEL))
            named["not conditional"] = tuple(seem[discoveries(values[seem].tolist(), LEVEL)])
        for rule, which in named.items():
            wrong = sum(i >= gone for i in which)
            figures.setdefault(f"{rule}: wrong", []).append(wrong / max(len(which), 1))
            figures.setdefault(f"{rule}: found", []).append((len(which) - wrong) / gone)
    noise = float(np.std(figures["candidates: wrong"]) / math.sqrt(draws))
    return {key: float(np.mean(values)) for key, values in figures.items()} | {"noise": noise}


def main() -> None:
    quick = bench.quick(__doc__)
    draws = 200 if quick else 4000
    figures: dict[str, Any] = {}
    wrong: list[str] = []
    print("Seen (paired / unpaired), of a change of pass@1 by")
    print("| related | prompts | n | " + " | ".join(f"{100 * x:g} points" for x in POINTS) + " |")
    print("|---|---|---|" + "---|" * len(POINTS))
    for kind in KINDS:
        for m, n in SIZES[:2] if quick else SIZES:
            cells = []
            for fall in POINTS:
                found = seen(kind, fall, m, n, draws)
                figures[f"{kind}, {m} prompts, n={n}, {100 * fall:g} points"] = found
                cells.append(f"{found['paired']:.2f} / {found['unpaired']:.2f}")
                limit = LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / draws)
                code = LEVEL / 2 + 3 * math.sqrt(LEVEL / 2 / draws)
                if fall == 0 and found["paired"] > limit:
                    wrong.append(f"{kind}, {m}, {n}: false changes {found['paired']}")
                if fall == 0.01 and max(found["code 0"], found["code 1"]) > code:
                    wrong.append(f"{kind}, {m}, {n}: false codes {found}")
                helps = 2 if kind != "unrelated" and n > 1 and fall == 0.02 else 0
                if found["paired"] < min(helps * found["unpaired"], 0.9):
                    wrong.append(f"{kind}, {m}, {n}: pairing does not help")
            print(f"| {kind} | {m} | {n} | {' | '.join(cells)} |", flush=True)
    print("\nPrompts lost: share of the named that is wrong, share of the lost that is found")
    print("| population | n | candidates | all prompts | not conditional |\n|---|---|---|---|---|")
    for kind in ("all at the margin", "most at 0 or 1", "spread out"):
        for n in (8, 16, 64, None):
            found = lost(kind, n, 8 if quick else 200)
            figures[f"{kind}, n={n or '4 to 32'}"] = found
            cells = [
                f"{found[f'{rule}: wrong']:.3f}, {found[f'{rule}: found']:.2f}"
                if f"{rule}: wrong" in found
                else ""
                for rule in ("candidates", "all prompts", "not conditional")
            ]
            print(f"| {kind} | {n or '4 to 32'} | {' | '.join(cells)} |", flush=True)
            if found["candidates: wrong"] > LEVEL + 3 * found["noise"]:
                wrong.append(f"{kind}, n={n}: false discoveries {found['candidates: wrong']}")
    if not quick:
        rows = {
            label: {key: bench.rounded(value) for key, value in found.items()}
            for label, found in figures.items()
        }
        bench.write_lines(RESULTS, rows)
    if wrong:
        sys.exit("out of bounds:\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
