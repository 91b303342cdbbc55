"""Why a step for pass@8 can lower pass@1: the paper's contextual bandit, in four pictures.

    python examples/bandit.py

After section 3.2 of Barakat et al. 2026 (arXiv 2602.21189): many easy and few hard prompts share a
softmax policy over features ``[1, s]``, which favours what easy prompts want. All is exact, but the
dots of the last picture: they are estimates from sampled rollouts.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy import linalg, ndarray

from passk_guard import prompt_weight, unbiased_prompt_weight
from passk_guard.statistics.alignment import weighted_kernels
from passk_guard.statistics.cosine import gradient_parts, profile_cosine

GOOD, BAD, BASE, RNG = "#1b7837", "#b2182b", "#2166ac", np.random.default_rng(0)
KS, PROMPTS, ROLLOUTS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32], 512, 64
RIGHT = (RNG.random(400) < 0.2).astype(int)  # easy prompts want answer 0, hard ones answer 1
X = np.stack([np.ones(400), RNG.normal(0.4 * RIGHT - 0.2, 0.3)], 1)
THETA = np.array([[1.7, -1.5], [0.0, 1.5], [0.0, 0.0], [0.0, 0.0]])  # one row per answer


def gradients(theta: ndarray, x: ndarray, right: ndarray, n: int = 0) -> tuple[ndarray, ndarray]:
    """Pass rates p and rows ∇p, exact; of n rollouts, the shares solved and leave-one-out ĝ."""
    odds, wanted = np.exp(x @ theta.T), np.eye(len(theta))[right]
    pi = odds / odds.sum(1, keepdims=True)
    shares = RNG.multinomial(n, pi) / n if n else pi
    p = (shares * wanted).sum(1)
    slopes = shares * (wanted - p[:, None]) * (n / (n - 1) if n else 1)  # by logit
    return p, (slopes[:, :, None] * x[:, None, :]).reshape(len(x), -1)


def main() -> None:
    p, g = gradients(THETA, X, RIGHT)
    ascent = {k: prompt_weight(p, k) @ g / len(p) for k in KS}  # ∇pass@k
    truth = {k: v @ ascent[1] / linalg.norm(v) / linalg.norm(ascent[1]) for k, v in ascent.items()}
    figure, ((step, heat), (pull, curve)) = plt.subplots(2, 2, figsize=(9, 7), layout="constrained")

    for k, color in ((1, BASE), (8, BAD)):
        path = [gradients(THETA + eta * ascent[k].reshape(4, 2), X, RIGHT)[0] for eta in range(7)]
        levels = [(q.mean(), np.mean(1 - (1 - q) ** 8)) for q in path]
        step.plot(*np.transpose(levels), ".-", color=color, label=f"θ + η ∇pass@{k}, η = 0 to 6")
    step.set(title="A step for pass@8 costs pass@1", xlabel="pass@1", ylabel="pass@8")
    step.legend(frameon=False)

    order = np.argsort(p)
    rows = (g / linalg.norm(g, axis=1, keepdims=True))[order]
    mesh = heat.pcolormesh(p[order], p[order], rows @ rows.T, cmap="RdBu", vmin=-1, vmax=1)
    figure.colorbar(mesh, ax=heat, label="cosine of their gradients")
    heat.set(title="Hard and easy prompts interfere", xlabel="pass rate", ylabel="pass rate")

    agreement = g @ ascent[1] / (g @ ascent[1]).max()  # the largest is 1
    pull.fill_between(p[order], prompt_weight(p[order], 8) / 8, color=BASE, alpha=0.2)
    pull.scatter(p, agreement, s=12, c=np.where(agreement < 0, BAD, GOOD))
    pull.set(title="Pass@8 weighs (blue) the red prompts", xlabel="pass rate", ylabel="agreement")

    curve.axhspan(-1, 0, color=BAD, alpha=0.1, lw=0)
    curve.plot([str(k) for k in KS], list(truth.values()), color=BASE)
    drawn = RNG.integers(400, size=PROMPTS)
    solved, sampled = gradients(THETA, X[drawn], RIGHT[drawn], ROLLOUTS)
    print("  k   exact    estimate, 95 %           z")
    for k in KS:
        weights = unbiased_prompt_weight((solved * ROLLOUTS).round(), ROLLOUTS, k)
        c = profile_cosine(gradient_parts(weighted_kernels(sampled @ sampled.T, weights)))
        curve.errorbar(str(k), c.value, [[c.value - c.low], [c.high - c.value]], fmt=".k")
        print(f"{k:3}{truth[k]:+8.2f}{c.value:+8.2f} ({c.low:+.2f}, {c.high:+.2f}){c.z:+8.1f}")
    curve.set(title="The conflict grows with k (dots: estimated)", xlabel="k", ylabel="cosine")
    Path("runs/bandit").mkdir(parents=True, exist_ok=True)
    figure.savefig("runs/bandit/bandit.png", dpi=110)


if __name__ == "__main__":
    main()
