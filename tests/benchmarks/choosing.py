"""How to spend a probe's rollouts: many prompts, or many rollouts of each?

    python tests/benchmarks/choosing.py

On the bandit of examples/bandit.py, whose truth is known: how clearly one probe shows the conflict
of pass@k with pass@1, in standard errors of the inner product, and the error of pass@1 itself; how
often the cosine's interval covers the truth. The figures are left in ``results/choosing.json``.
"""

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import bandit

from passk_guard import estimate_alignment, prompt_weight, unbiased_prompt_weight
from passk_guard.statistics.cosine import gradient_parts, pooled_gradient_parts, profile_cosine

K, PROBES = 8, 1500
RESULTS = Path(__file__).parent / "results" / "choosing.json"


def probe(m, n):
    """Gradients and right rollouts of one probe, and its pass@1."""
    rows = bandit.RNG.integers(len(bandit.X), size=m)
    p, g = bandit.gradients(bandit.THETA, bandit.X[rows], bandit.RIGHT[rows], n)
    solved = (p * n).round().astype(int)
    return g, solved, p.mean()


def inner_product(m, n):
    """Of one probe, with its pass@1 and its share of prompts without signal."""
    g, solved, level = probe(m, n)
    found = estimate_alignment(g @ g.T, solved, n, K)
    return found.inner, level, np.mean((solved == 0) | (solved == n))


def coverage(longest=12, runs=300):
    """After each probe of 64 x 16: how many intervals of the cosine are right, and their width."""
    p, g = bandit.gradients(bandit.THETA, bandit.X, bandit.RIGHT)
    one, many = g.mean(0), prompt_weight(p, K) @ g / len(p)
    truth = one @ many / np.linalg.norm(one) / np.linalg.norm(many)
    right, width = np.zeros(longest), np.zeros(longest)
    for _ in range(runs):
        parts = []
        for at in range(longest):
            g, solved, _ = probe(64, 2 * K)
            parts.append(gradient_parts(g @ g.T, unbiased_prompt_weight(solved, 2 * K, K)))
            ages = np.arange(len(parts))[::-1]
            cosine = profile_cosine(pooled_gradient_parts(parts, 0.85**ages))
            right[at] += cosine.low <= truth <= cosine.high
            width[at] += cosine.high - cosine.low
    return right / runs, width / runs


def main():
    figures = {"probes": {}}
    print("   m     n  rollouts -inner / s.e.  s.e. of pass@1  no signal")
    same_cost = [(1024 // n, n) for n in (K + 1, 3 * K // 2, 2 * K, 4 * K, 8 * K)]
    for m, n in (*same_cost, *((m, 2 * K) for m in (16, 32, 128, 256))):
        inner, level, silent = map(
            np.array, zip(*[inner_product(m, n) for _ in range(PROBES)], strict=True)
        )
        z, error = -inner.mean() / inner.std(), level.std()
        figures["probes"][f"{m} x {n}"] = {"z": round(z, 3), "error": round(error, 4)}
        print(f"{m:4}{n:6}{m * n:10}{z:14.2f}{error:16.3f}{silent.mean():11.2f}", flush=True)
    print("\nprobes  interval covers the truth  its width")
    covers, widths = coverage()
    for at, row in enumerate(zip(covers, widths, strict=True), 1):
        print("{:6}{:27.2f}{:11.2f}".format(at, *row))
    figures["coverage"] = [round(share, 3) for share in covers]
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
