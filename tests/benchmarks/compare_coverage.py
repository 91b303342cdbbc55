"""How often the intervals of `passk-guard compare` hold the truth, and how often plain ones do.

    python tests/benchmarks/compare_coverage.py            # twenty minutes on one core
    python tests/benchmarks/compare_coverage.py --others   # three minutes, see below
    python tests/benchmarks/compare_coverage.py --quick    # half a minute, for a look

Every population of ``tests/helpers/checkpoint_pairs.py``, 50 to 5,000 prompts drawn from it, 1 to
64 rollouts of each, the same number or any from k to 64, k from 1 to n. For the change of pass@k
and for pass@k after: the share of draws whose 95 % interval holds the mean of the population.
Beside it that of the plain interval, mean ± 1.96 standard errors, and how much wider two
checkpoints are apart if they are not paired.

A share near a limit is drawn again, five times as often. Exits with an error where one is below
.93, save where the population's rare prompts need not be in a sample; where 20 prompts or more make
the spread and it is above .98; or where the plain interval does not fail.
The full form leaves its figures in ``results/compare_coverage.json``.

The constants of the interval were chosen on these populations. ``--others`` draws 300 that nobody
chose, with a number of prompts, an n and a k at random, and leaves ``results/compare_others.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator

import bench

# isort: split
import numpy as np
from checkpoint_pairs import POPULATIONS, SEEN, another, drawn, truth

from passk_guard.statistics.mean_interval import makers_of_spread, mean_intervals

RESULTS = "compare_coverage.json"
OTHERS = "compare_others.json"

PROMPTS = {50: 4000, 200: 3000, 1000: 1500, 5000: 500}  # and draws of each
ROLLOUTS: dict[int | None, tuple[int, ...]] = {
    1: (1,),
    2: (1, 2),
    4: (1, 2, 4),
    16: (1, 8, 16),
    64: (1, 8, 32, 64),
    None: (1, 4, 16),
}
LEAST, MOST, MANY = 0.93, 0.98, 20
MAKERS = {"change": "20 make the spread", "after": "20 make it after"}
_AT_ONCE = 1 << 20  # values


def plain(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    centre, m = values.mean(1), values.shape[1]
    half = 1.96 * values.std(1, ddof=1) / math.sqrt(m)
    return centre - half, centre + half


def cell(
    rng: np.random.Generator, name: str, m: int, n: int | None, k: int, draws: int
) -> dict[str, float]:
    """Shares and means over the draws of one population, one size, one n and one k."""
    change, after = truth(name, k)
    sums: dict[str, float] = {}
    left = draws
    while left:
        here = min(left, max(_AT_ONCE // m, 1))
        left -= here
        first, last = drawn(rng, name, here, m, n, k)
        difference = last - first
        low, high = mean_intervals(difference, -1.0, 1.0)
        low_after, high_after = mean_intervals(last)
        low_plain, high_plain = plain(difference)
        differing = (np.abs(difference) > 1e-12).sum(1)
        unpaired = 2 * 1.96 * np.sqrt((first.var(1) + last.var(1)) / m)
        for key, values in {
            "change": (low <= change) & (change <= high),
            "after": (low_after <= after) & (after <= high_after),
            "plain": (low_plain <= change) & (change <= high_plain),
            "20 differ": differing >= MANY,
            "20 make the spread": makers_of_spread(difference)[0] >= MANY,
            "20 make it after": makers_of_spread(last)[0] >= MANY,
            "length": high - low,
            "plain length": high_plain - low_plain,
            "unpaired length": unpaired,
        }.items():
            sums[key] = sums.get(key, 0.0) + float(values.sum())
    return {key: value / draws for key, value in sums.items()} | {"draws": draws}


def near_a_limit(found: dict[str, float]) -> bool:
    return any(
        found[key] < LEAST + 0.012 or (found[key] > MOST - 0.006 and found[many] > 0.95)
        for key, many in MAKERS.items()
    )


def faults(name: str, m: int, found: dict[str, float]) -> list[str]:
    """What is out of bounds, beyond what chance explains."""
    said = []
    for key, many in MAKERS.items():
        noise = 3 * math.sqrt(LEAST * (1 - LEAST) / found["draws"])
        if found[key] < LEAST - noise and m * SEEN.get(name, 1) >= 4:
            said.append(f"{key} low")
        noise = 3 * math.sqrt(MOST * (1 - MOST) / found["draws"])
        if found[key] > MOST + noise and found[many] > 0.95:
            said.append(f"{key} high")
    return said


def keep(figures: dict[str, dict[str, float]], name: str) -> None:
    columns = list(next(iter(figures.values())))
    rows = {label: list(map(bench.rounded, found.values())) for label, found in figures.items()}
    bench.write_lines(name, {"columns": columns} | rows)


def kept(name: str = RESULTS) -> dict[str, dict[str, float]]:
    """What the full form left, by cell."""
    rows = json.loads((bench.RESULTS / name).read_text())
    columns = rows.pop("columns")
    return {label: dict(zip(columns, row, strict=True)) for label, row in rows.items()}


def others(count: int, draws: int) -> dict[str, dict[str, float]]:
    """Cells of populations at random."""
    figures = {}
    for seed in range(count):
        rng = np.random.default_rng([seed, 56])
        name = f"at random, {seed}"
        POPULATIONS[name] = another(seed)
        m = int(np.exp(rng.uniform(np.log(50), np.log(2000))))
        n = [None, *ROLLOUTS][rng.integers(len(ROLLOUTS) + 1)]  # unequal ones twice as often
        k = int(rng.integers(1, 17 if n is None else n + 1))
        found = cell(rng, name, m, n, k, draws)
        if near_a_limit(found):
            found = cell(rng, name, m, n, k, 5 * draws)
        figures[f"{name}, {m} prompts, n={n or 'k to 64'}, k={k}"] = found
        del POPULATIONS[name]
    return figures


def cells(quick: bool) -> Iterator[tuple[str, int, int | None, int]]:
    for name in POPULATIONS:
        for m in (50, 200) if quick else PROMPTS:
            for n, ks in {4: (1, 4), 64: (8,)}.items() if quick else ROLLOUTS.items():
                for k in ks:
                    yield name, m, n, k


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--others", action="store_true")
    options = parser.parse_args()
    if options.others:
        figures = others(300, 2000)
        keep(figures, OTHERS)
        for key, many in MAKERS.items():
            shares = [found[key] for found in figures.values()]
            where = [found[key] for found in figures.values() if found[many] > 0.95]
            print(f"{key}: {min(shares):.3f} to {max(shares):.3f}; where {many}: {max(where):.3f}")
        return
    rng = np.random.default_rng(18)
    figures = {}
    wrong, plain_least = [], 1.0
    print("| population | prompts | n | k | change | after | plain | length / plain | unpaired |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, m, n, k in cells(options.quick):
        found = cell(rng, name, m, n, k, 500 if options.quick else PROMPTS[m])
        if near_a_limit(found) and not options.quick:
            found = cell(rng, name, m, n, k, 5 * PROMPTS[m])
        label = f"{name}, {m} prompts, n={n or 'k to 64'}, k={k}"
        figures[label] = found
        plain_least = min(plain_least, found["plain"])
        bad = faults(name, m, found)
        wrong += [f"{label}: {one}" for one in bad]
        width = found["plain length"] or math.nan
        print(
            f"| {name} | {m} | {n or 'any'} | {k} | {found['change']:.3f} | {found['after']:.3f} "
            f"| {found['plain']:.3f} | {found['length'] / width:.2f} "
            f"| {found['unpaired length'] / width:.1f} | {', '.join(bad)}",
            flush=True,
        )
    if not options.quick:
        keep(figures, RESULTS)
    if wrong or plain_least > 0.8:
        sys.exit("out of bounds:\n" + "\n".join(wrong or ["the plain interval did not fail"]))


if __name__ == "__main__":
    main()
