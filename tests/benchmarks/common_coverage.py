"""How often the interval of `passk-guard compare` on common rollouts holds the truth.

    python tests/benchmarks/common_coverage.py            # five minutes on one core
    python tests/benchmarks/common_coverage.py --quick    # a few seconds, for a look

Two policies of which every prompt's pass@1 is known, an answer being right or wrong; rollouts of
the first, scored under both. For populations that move a little, or in which a few prompts fall
far, 200 and 512 prompts, 4 and 16 rollouts of each: the share of the draws whose interval holds the
change, of those in which common rollouts are allowed; beside it the plain interval, change ± 1.96
standard errors.

Exits with an error where a share is surely below .93, or the plain interval does not fail. The full
form leaves its figures in ``results/common_coverage.json``.
"""

from __future__ import annotations

import math
import sys

import bench

# isort: split
import numpy as np
import torch

from passk_guard.rollouts.group import RolloutGroup
from passk_guard.statistics.common_rollouts import CommonRollouts, common_rollouts

SIZE, LEAST = 4000, 0.93


def _populations() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    spread = rng.random(SIZE).clip(0.02, 0.98)
    logit = np.log(spread / (1 - spread))
    rare = lambda share: rng.random(SIZE) < share  # noqa: E731
    easy = np.full(SIZE, 0.98)
    return {
        "the same": (spread, spread),
        "a little harder": (spread, 1 / (1 + np.exp(0.1 - logit))),
        "noise": (spread, 1 / (1 + np.exp(-logit - 0.2 * rng.normal(size=SIZE)))),
        "a tenth fall": (spread, np.where(rare(0.1), spread * 0.6, spread)),
        "2 % fall far": (spread, np.where(rare(0.02), (spread - 0.7).clip(0.01), spread)),
        "1 % fall far": (np.full(SIZE, 0.6), np.where(rare(0.01), 0.05, 0.6)),
        "2 % of easy ones fall far": (easy, np.where(rare(0.02), 0.28, easy)),
    }


POPULATIONS = _populations()
"""By name: ``(SIZE,)`` pass@1 of each prompt before and after."""


def drawn(rng: np.random.Generator, name: str, m: int, n: int) -> CommonRollouts:
    """One comparison on ``m`` prompts x ``n`` rollouts."""
    before, after = POPULATIONS[name]
    at = rng.integers(0, SIZE, m)
    right = rng.random((m, n)) < before[at][:, None]
    under = [
        torch.tensor(np.log(np.where(right, p[at][:, None], 1 - p[at][:, None])))[..., None]
        for p in (before, after)
    ]
    one = torch.ones(n, 1, dtype=torch.long)
    groups = [
        RolloutGroup(j, one, one, one, torch.tensor(row).float(), sampling_log_probs=under[0][j])
        for j, row in enumerate(right)
    ]
    return common_rollouts(groups, list(under[0]), list(under[1]))


def coverage(name: str, m: int, n: int, draws: int) -> dict[str, float]:
    """Shares over the draws in which common rollouts are allowed."""
    rng, truth = np.random.default_rng([m, n]), float(np.diff(POPULATIONS[name], axis=0).mean())
    found = [one for one in (drawn(rng, name, m, n) for _ in range(draws)) if one.allowed]
    return {
        "allowed": len(found) / draws,
        "inside": float(np.mean([one.low <= truth <= one.high for one in found])),
        "plain": float(np.mean([abs(one.change - truth) <= 1.96 * one.se for one in found])),
        "width": float(np.mean([one.high - one.low for one in found])),
        "draws": draws,
    }


def main() -> None:
    quick = bench.quick(__doc__)
    figures, good = {}, True
    for name in POPULATIONS:
        for m in (200, 512):
            for n in (4, 16):
                cell = coverage(name, m, n, 10 if quick else 250)
                figures[f"{name}, {m} prompts, n={n}"] = cell
                print(f"| {name} | {m} | {n} | " + " | ".join(f"{v:.3g}" for v in cell.values()))
                slack = 3 * math.sqrt(LEAST * (1 - LEAST) / max(cell["allowed"] * cell["draws"], 1))
                good &= cell["inside"] >= LEAST - slack
    if not quick:
        bench.write("common_coverage.json", figures)
    if not good or (not quick and min(c["plain"] for c in figures.values()) > 0.9):
        sys.exit("out of bounds: see the table")


if __name__ == "__main__":
    main()
