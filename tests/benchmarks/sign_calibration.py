"""How often `passk-guard probe` is sure of a wrong sign: looks at 128, 256 and 512 prompts.

    python tests/benchmarks/sign_calibration.py            # twenty minutes on one core
    python tests/benchmarks/sign_calibration.py --quick    # half a minute, for a look

For every null of ``tests/helpers/nulls.py``, where the truth is 0 and either sign is wrong: the
share of probes that were sure of "lowers", and of "raises", at one look (512 prompts), or at any
of three at which they might stop. The two populations that are opposed show the power, and how many
prompts a probe took that might stop early. In brackets the negative control: each look at the whole
chance, and ``U / √V`` against the normal quantile.

Exits with an error where a rate is surely above twice what may be spent, or the control's is not.
The full form leaves its figures in ``results/sign_calibration.json``.
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
from passk_guard.statistics.sign_test import chance_of_look, look_sizes

CHANCE = 0.05
SIZES = look_sizes(512, 64)


def drawn(name: str, draws: int) -> dict[str, np.ndarray]:
    """``(looks, draws)`` each: z where it may be low, where it may be high, and plain."""
    rng = np.random.default_rng([512, 77])
    found: dict[str, list[list[np.ndarray]]] = {key: [] for key in ("low", "high", "plain")}
    for gradients, weights in simulated((NULLS | CONTROLS)[name], rng, draws, 512, 1 << 18):
        parts: dict[str, list[np.ndarray]] = {key: [] for key in found}
        for size in SIZES:
            g, w = gradients[:, :size], weights[:, :size]
            got = kernels(g, w)
            parts["low"].append(first_z(g, w, beyond=1.9))
            parts["high"].append(-first_z(g, -w, beyond=1.9))
            parts["plain"].append(got.inner / np.sqrt(np.where(got.kept > 0, got.kept, 1.0)))
        for key, values in parts.items():
            found[key].append(values)
    return {key: np.concatenate(values, 1) for key, values in found.items()}


def rates(z: dict[str, np.ndarray]) -> dict[str, float]:
    """Shares of probes that are sure, and mean prompts of those that may stop early."""
    looks = len(SIZES)
    early = np.array(
        [
            first_threshold(chance_of_look(CHANCE, 1, look, looks), size)
            for look, size in enumerate(SIZES, start=1)
        ]
    )[:, None]
    once = first_threshold(chance_of_look(CHANCE, 1, 1, 1), SIZES[-1])
    normal = -NormalDist().inv_cdf(CHANCE)
    sure = (z["low"] < -early) | (z["high"] > early)
    stopped = np.where(sure.any(0), np.array(SIZES)[sure.argmax(0)], SIZES[-1])
    return {
        "lowers, one look": float((z["low"][-1] < -once).mean()),
        "raises, one look": float((z["high"][-1] > once).mean()),
        "lowers, three looks": float((z["low"] < -early).any(0).mean()),
        "raises, three looks": float((z["high"] > early).any(0).mean()),
        "control, three looks": float((z["plain"] < -normal).any(0).mean()),
        "prompts, three looks": float(stopped.mean()),
    }


def main() -> None:
    quick = bench.quick(__doc__)
    figures: dict[str, Any] = {}
    good, control = True, 0.0
    print(
        "| population | "
        + " | ".join(rates(dict.fromkeys(("low", "high", "plain"), np.zeros((len(SIZES), 1)))))
        + " |"
    )
    print("|---|" + "---|" * 6)
    for name in NULLS | CONTROLS:
        draws = 100 if quick else 4000
        if name == "isotropic":  # 300 dimensions
            draws //= 10
        found = rates(drawn(name, draws))
        figures[name] = {**found, "draws": draws}
        print(
            f"| {name} | " + " | ".join(f"{value:.4g}" for value in found.values()) + " |",
            flush=True,
        )
        if name in CONTROLS:
            continue
        control = max(control, found["control, three looks"])
        worst = max(value for key, value in found.items() if key.startswith(("low", "rai")))
        good &= worst < 2 * CHANCE + 3 * math.sqrt(2 * CHANCE / draws)
    if not quick:
        bench.write("sign_calibration.json", figures)
    if not (good and control > 3 * CHANCE):
        sys.exit("out of bounds: see the table")


if __name__ == "__main__":
    main()
