"""Populations of prompts under two checkpoints, for simulations of what compares the two."""

import numpy as np

from passk_guard.passk import pass_at_k

SIZE = 20_000
"""Prompts of a population. Samples are drawn with replacement, so its means are the truth."""


def _logit(p):
    return np.log(p / (1 - p))


def _logistic(x):
    return 1 / (1 + np.exp(-x))


def _populations():
    rng, place = np.random.default_rng(7), np.arange(SIZE) / SIZE
    spread = rng.beta(0.5, 0.5, SIZE)
    even = rng.random(SIZE).clip(1e-3, 1 - 1e-3)
    solved = (rng.random(SIZE) < 0.6).astype(float)  # always or never
    open_ = rng.random(SIZE) < 0.1
    easy, hard = rng.beta(8, 0.5, SIZE), rng.beta(0.2, 5, SIZE)
    swapped = np.where(place < 0.3, 0.9, np.where(place < 0.6, 0.1, spread))
    return {
        "the same": (spread, spread),
        "all alike": (np.full(SIZE, 0.5), np.full(SIZE, 0.5)),
        "nothing but ties": (solved, solved),
        "a tenth in play": (
            np.where(open_, even, solved),
            np.where(open_, even * 0.6, solved),
        ),
        "2 % lost, else ties": (
            np.where(place < 0.02, 1.0, solved),
            np.where(place < 0.02, 0.0, solved),
        ),
        "1 in 1,000 lost, else ties": (
            np.where(place < 0.001, 1.0, solved),
            np.where(place < 0.001, 0.0, solved),
        ),
        "1 % lost or won, else ties": (
            np.where(place < 0.005, 1.0, np.where(place < 0.01, 0.0, solved)),
            np.where(place < 0.005, 0.0, np.where(place < 0.01, 1.0, solved)),
        ),
        "2 % lost, else small noise": (
            np.where(place < 0.02, 0.9, 0.02),
            np.where(place < 0.02, 0.0, 0.02),
        ),
        "10 % lost, else noise": (
            np.where(place < 0.1, 0.9, 0.05),
            np.where(place < 0.1, 0.0, 0.05),
        ),
        "shifted": (even, _logistic(_logit(even) - 0.3)),
        "5 % off": (even, even * 0.95),
        "easy ones": (easy, easy**1.5),
        "hard ones": (hard, hard * 0.7),
        "sharpened": (even, _logistic(4 * _logit(even))),
        "turned over": (swapped, np.where(place < 0.3, 0.1, np.where(place < 0.6, 0.9, spread))),
        "unrelated": (spread, rng.permutation(spread) ** 1.2),
    }


POPULATIONS = _populations()
"""By name: ``(SIZE,)`` pass@1 of each prompt before and after."""


def another(seed):
    """A population of no design: kinds of prompts of random sizes, each changed in its own way."""
    rng = np.random.default_rng([seed, 55])
    before, after = np.empty(SIZE), np.empty(SIZE)
    edges = np.sort(rng.integers(0, SIZE, size=rng.integers(0, 4)))
    for at in np.split(np.arange(SIZE), edges):
        p = rng.beta(*np.exp(rng.uniform(-2.5, 2.5, size=2)), size=len(at)).clip(1e-6, 1 - 1e-6)
        q = _logistic(_logit(p) * rng.choice([1, 1, 1.5, 3]) + rng.choice([0, 0, -1, -0.3, 0.3, 2]))
        how = rng.integers(5)
        before[at] = p
        after[at] = [q, q, p, rng.permutation(q), q * (rng.random(len(at)) < 0.9)][how]
    return before, after


SEEN = {"2 % lost, else small noise": 0.02}
"""Shares of prompts that make the change alone, among others that differ by noise.

Where a sample need not hold one of them nothing tells it from a sample without a change, and an
interval that covers both is far too long for the latter.
"""


def truth(name, k):
    """Mean change of pass@k, and mean after."""
    before, after = POPULATIONS[name]
    return ((1 - before) ** k - (1 - after) ** k).mean(), (1 - (1 - after) ** k).mean()


def drawn(rng, name, draws, m, n, k):
    """``(draws, m)`` unbiased pass@k before and after; with ``n=None`` of k to 64 rollouts."""
    at = rng.integers(SIZE, size=(draws, m))
    found = []
    for p in POPULATIONS[name]:
        if n is None:
            table = np.full((65, 65), np.nan)
            for each in range(k, 65):
                table[each, : each + 1] = pass_at_k(np.arange(each + 1), each, k)
            rollouts = rng.integers(k, 65, size=at.shape)
            found.append(table[rollouts, rng.binomial(rollouts, p[at])])
        else:
            found.append(pass_at_k(np.arange(n + 1), n, k)[rng.binomial(n, p[at])])
    return found
