"""False alarms of the test before training, where there is no conflict, and its power.

    python tests/benchmarks/first_calibration.py            # six minutes on one core
    python tests/benchmarks/first_calibration.py --quick    # half a minute, for a look

For every null of ``tests/helpers/nulls.py`` and every number of prompts: how often the test finds
a conflict, over the nominal chance. The two populations that are opposed show its power, as a
share. In brackets the negative control: ``U / √V`` below a normal quantile.

Exits with an error where a rate is surely above twice the nominal one, or the control's is not.
The full form leaves its figures in ``results/first_calibration.json``.
"""

from __future__ import annotations

import math
import sys
from statistics import NormalDist
from typing import Any

import bench

# isort: split
import numpy as np
from factored import first_z, kernels, simulated
from nulls import CONTROLS, NULLS

from passk_guard.statistics.first_test import first_threshold

NOMINAL = (1e-2, 1e-3, 5e-4)
DRAWS = {32: 40_000, 64: 40_000, 128: 20_000, 256: 20_000, 512: 10_000}


def drawn(name: str, m: int, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """``(draws,)`` z of the test, and plain."""
    rng = np.random.default_rng([m, 33])
    ours, plain = [], []
    for gradients, weights in simulated((NULLS | CONTROLS)[name], rng, draws, m, 1 << 18):
        ours.append(first_z(gradients, weights, beyond=2.5))
        got = kernels(gradients, weights)
        plain.append(got.inner / np.sqrt(np.where(got.kept > 0, got.kept, 1.0)))
    return np.concatenate(ours), np.concatenate(plain)


def main() -> None:
    quick = bench.quick(__doc__)
    figures: dict[str, Any] = {}
    good, control = True, 0.0
    for m, full in DRAWS.items():
        if quick and m not in (64, 128):
            continue
        print(f"\n| {m} prompts | " + " | ".join(f"at {a:g}" for a in NOMINAL) + " | draws |")
        print("|---|---|---|---|---|")
        for name in NULLS | CONTROLS:
            draws = full // 20 if quick or name in CONTROLS else full
            if name == "isotropic":  # 300 dimensions
                draws = max(draws * 8 // m, 200)
            z, plain = drawn(name, m, draws)
            cells = []
            for nominal in NOMINAL:
                rate = float((z < -first_threshold(nominal, m)).mean())
                wolf = float((plain < NormalDist().inv_cdf(nominal)).mean()) / nominal
                figures[f"{name}, {m} prompts at {nominal:g}"] = [rate, wolf * nominal, draws]
                if name in CONTROLS:
                    cells.append(f"found {rate:.2f}")
                    continue
                cells.append(f"{rate / nominal:.2f} ({wolf:.1f})")
                control = max(control, wolf)
                good &= rate < 2 * nominal + 3 * math.sqrt(2 * nominal / draws)
            print(f"| {name} | {' | '.join(cells)} | {draws} |", flush=True)
    if not quick:
        bench.write("first_calibration.json", figures)
    if not (good and control > 5):
        sys.exit("out of bounds: see the tables")


if __name__ == "__main__":
    main()
