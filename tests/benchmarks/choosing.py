"""How to spend a probe's rollouts: many prompts, or many rollouts of each?

    python tests/benchmarks/choosing.py

On the bandit of examples/bandit.py, whose truth is known: how clearly one probe shows the conflict
of pass@k with pass@1, in standard errors of the inner product, and the error of pass@1 itself.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import bandit

from passk_guard import estimate_alignment

K, PROBES = 8, 1500


def probe(m, n):
    """Inner product and pass@1 of one probe."""
    rows = bandit.RNG.integers(len(bandit.X), size=m)
    p, g = bandit.gradients(bandit.THETA, bandit.X[rows], bandit.RIGHT[rows], n)
    solved = (p * n).round().astype(int)
    found = estimate_alignment(g @ g.T, solved, n, K)
    return found.inner, p.mean(), np.mean((solved == 0) | (solved == n))


def main():
    print("   m     n  rollouts  inner / s.e.  s.e. of pass@1  no signal")
    same_cost = [(1024 // n, n) for n in (K + 1, 3 * K // 2, 2 * K, 4 * K, 8 * K)]
    for m, n in (*same_cost, *((m, 2 * K) for m in (16, 32, 128, 256))):
        inner, level, silent = np.array([probe(m, n) for _ in range(PROBES)]).T
        print(
            f"{m:4}{n:6}{m * n:10}{inner.mean() / inner.std():14.2f}"
            f"{level.std():16.3f}{silent.mean():11.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
