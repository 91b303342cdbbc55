"""How to spend a look's rollouts: many prompts, or many rollouts of each?

    python tests/benchmarks/choosing.py

On the bandit of examples/bandit.py, whose truth is known, with 6144 rollouts at the start and 1024
at a look, of the same prompts: how clearly a look shows the conflict of pass@k with pass@1, in
standard errors of the inner product; the error of the change of pass@1 after a few steps, where it
has fallen; and how often the cosine's interval covers the truth. The figures are left in
``results/choosing.json``.
"""

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import bandit

from passk_guard import prompt_weight, unbiased_prompt_weight, weighted_alignment
from passk_guard.statistics.kept_batches import KeptBatch, KeptBatches

K, START, LOOK, RUNS = 8, 6144, 1024, 400
RESULTS = Path(__file__).parent / "results" / "choosing.json"
P, G = bandit.gradients(bandit.THETA, bandit.X, bandit.RIGHT)
ASCENT = prompt_weight(P, K) @ G / len(P)
LATER = bandit.THETA + 4 * ASCENT.reshape(4, 2)


def weigh(batch):
    return unbiased_prompt_weight(batch.correct, batch.n, K)


class Panel:
    """Prompts that are solved again and again."""

    def __init__(self, m):
        drawn = bandit.RNG.integers(len(P), size=m)
        self.x, self.right, self.n = bandit.X[drawn], bandit.RIGHT[drawn], START // m
        self.rates, g = bandit.gradients(bandit.THETA, self.x, self.right, self.n)
        solved = (self.rates * self.n).round()
        self.reference = self._batch(g, solved, self.n, self.n)
        self._earlier = solved + 1, self.n + 2

    def _batch(self, g, correct, n, rollouts):
        return KeptBatch(g @ g.T, correct, np.full(len(g), n), np.full(len(g), np.nan), rollouts)

    def look(self, theta):
        """Its batch, with baselines and weights of the start, and its pass rates."""
        r, wanted = LOOK // len(self.x), np.eye(len(theta))[self.right]
        odds = np.exp(self.x @ theta.T)
        pi = odds / odds.sum(1, keepdims=True)
        shares = bandit.RNG.multinomial(r, pi) / r
        gain = shares * (wanted - self.rates[:, None])
        slopes = gain - gain.sum(1, keepdims=True) * pi
        g = (slopes[:, :, None] * self.x[:, None]).reshape(len(slopes), -1)
        return self._batch(g, *self._earlier, r), (shares * wanted).sum(1)


def measured(m):
    """z, and the error of the change of pass@1 in points."""
    moved = bandit.gradients(LATER, bandit.X, bandit.RIGHT)[0].mean() - P.mean()
    inner, off = [], []
    for _ in range(RUNS):
        panel = Panel(m)
        batch, _ = panel.look(bandit.THETA)
        inner.append(weighted_alignment(batch.gramian, weigh(batch)).inner)
        off.append((panel.look(LATER)[1] - panel.rates).mean() - moved)
    return -np.mean(inner) / np.std(inner), 100 * np.sqrt(np.mean(np.square(off)))


def coverage(longest=8):
    """After the start and after each look: how many intervals of the cosine are right."""
    one = G.mean(0)
    truth, right = one @ ASCENT / np.linalg.norm(one) / np.linalg.norm(ASCENT), np.zeros(longest)
    for _ in range(RUNS):
        panel = Panel(512)
        kept = KeptBatches([panel.reference])
        for at in range(longest):
            cosine = kept.cosine(weigh)
            right[at] += cosine.low <= truth <= cosine.high
            kept = kept.plus(panel.look(bandit.THETA)[0])
    return right / RUNS


def main():
    figures = {}
    for m in (512, 256, 128, 64):
        z, error = measured(m)
        figures[f"{m} x {LOOK // m}"] = {"z": round(float(z), 2), "error": round(float(error), 2)}
        print(m, LOOK // m, figures[f"{m} x {LOOK // m}"], flush=True)
    found = {"looks": figures, "coverage": coverage().round(3).tolist()}
    print(found["coverage"])
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
