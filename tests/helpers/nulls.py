"""Per-prompt gradients whose update neither helps nor harms pass@1: ``⟨E[w g], E[g]⟩`` is 0.

Every generator is ``f(rng, m) -> (gradients (m, r), weights (m,))``, m independent prompts. Those
of ``VANISHING`` have ``E[g] = 0`` whatever the weight. Those of ``ORTHOGONAL`` have two non-zero
means at a right angle, by construction: with two kinds of prompts, shares π, weights w_1 and w_2,
whose gradients have the means ::

    a = (s w_2 e_1 - t e_2) / (π_1 (w_2 - w_1))      b = (t e_2 - s w_1 e_1) / (π_2 (w_2 - w_1))

``E[g] = π_1 a + π_2 b = s e_1`` and ``E[w g] = π_1 w_1 a + π_2 w_2 b = t e_2``. What is added to a
and b is noise with mean zero given the kind. ``CONTROLS`` are no nulls.

Those of ``PANELS`` are looks at the same m prompts, ``f(rng, m)`` that yields gradients and weights
for ever, the reference's first. Prompts and what is their own stay; rollouts are fresh.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from passk_guard.passk import prompt_weight, unbiased_prompt_weight
from passk_guard.statistics.kept_batches import KeptBatch

Sample = tuple[np.ndarray, np.ndarray]
Generator = Callable[[np.random.Generator, int], Sample]
Panel = Callable[[np.random.Generator, int], Iterator[Sample]]


# Both gradients vanish --------------------------------------------------------------------------


def low_rank(rng: np.random.Generator, m: int) -> Sample:
    return rng.normal(size=(m, 2)), np.ones(m)


def isotropic(rng: np.random.Generator, m: int) -> Sample:
    return rng.normal(size=(m, 300)), 8 * rng.random(m) ** 7


def rare_hard(rng: np.random.Generator, m: int) -> Sample:
    hard = rng.random(m) < 0.05
    return rng.normal(size=(m, 5)), np.where(hard, 8.0, 0.02)


def heavy_tailed(rng: np.random.Generator, m: int) -> Sample:
    return rng.standard_t(2.5, size=(m, 1)) * rng.normal(size=(m, 10)), 8 * rng.random(m) ** 3


# Two gradients at a right angle -----------------------------------------------------------------


def kind_means(
    shares: tuple[float, float], weights: tuple[float, float], s: float, t: float, cosine: float = 0
) -> np.ndarray:
    """``(2, 2)``: a and b in the plane of e_1 and e_2; ``E[w g]`` at that cosine to ``E[g]``."""
    one = np.array([s, 0.0])
    other = t * np.array([cosine, math.sqrt(1 - cosine**2)])
    gap = weights[1] - weights[0]
    return np.stack(
        [
            (weights[1] * one - other) / (shares[0] * gap),
            (other - weights[0] * one) / (shares[1] * gap),
        ]
    )


def _two_means(rank, strength, rare, weights, tail, cosine=0.0):
    shares = (1 - rare, rare)
    spread = math.sqrt(rank / 64 * (1 if tail is None else tail / (tail - 2)))
    size = math.sqrt(shares[0] * weights[0] ** 2 + rare * weights[1] ** 2)
    return kind_means(shares, weights, strength[0] * spread, strength[1] * spread * size, cosine)


def two_kinds(
    rank: int,
    strength: tuple[float, float],
    rare: float = 0.3,
    weights: tuple[float, float] = (0.25, 3.0),
    tail: float | None = None,
    cosine: float = 0.0,
) -> Generator:
    """Common and rare prompts.

    Args:
        rank: dimensions in which there is noise, all of them.
        strength: sizes of ``E[g]`` and ``E[w g]``, each in units of its error in a batch of 64.
        rare: share of the second kind.
        weights: of the two kinds.
        tail: degrees of freedom of a heavy-tailed size of each gradient's noise.
        cosine: 0 for a null.
    """
    means = _two_means(rank, strength, rare, weights, tail, cosine)

    def sample(rng: np.random.Generator, m: int) -> Sample:
        kind = (rng.random(m) < rare).astype(int)
        gradients = rng.normal(size=(m, rank))
        if tail is not None:
            gradients *= rng.standard_t(tail, size=(m, 1))
        gradients[:, :2] += means[kind]
        return gradients, np.asarray(weights)[kind]

    return sample


_RATES, _SHARES = np.array([0.85, 0.5, 0.08]), np.array([0.5, 0.3, 0.2])


def _run_means(strength: float, rank: int, k: int, cosine: float) -> np.ndarray:
    easy, _, hard = (float(w) for w in prompt_weight(_RATES, k))
    size = strength * 0.2 * math.sqrt(rank) / 8
    found = kind_means((_SHARES[0], _SHARES[2]), (easy, hard), size, size * hard / 3, cosine)
    return np.insert(found, 1, 0.0, 0)


def rollouts(
    strength: float, rank: int = 12, n: int = 16, k: int = 8, cosine: float = 0.0
) -> Generator:
    """As in a run: easy, middling and hard prompts, n rollouts each, weights ŵ_k of the counts.

    A prompt's gradient given its count c has the mean ``c(n-c) / (n(n-1)p(1-p)) · ∇p`` (see
    ``unbiased_prompt_weight``) and noise that vanishes with ``c(n-c)``, so that ``E[ŵ_k g]`` is
    ``w_k(p) ∇p`` exactly. ∇p is a or b of easy and hard prompts, 0 of middling ones, and on top of
    it a direction of the prompt's own, with mean zero.

    Args:
        strength: sizes of ``∇J_1`` and ``∇J_k``, roughly in units of their error in a batch of 64.
        rank: dimensions.
        n, k: rollouts per prompt, and the k of the objective.
        cosine: 0 for a null.
    """
    means = _run_means(strength, rank, k, cosine)

    def sample(rng: np.random.Generator, m: int) -> Sample:
        kind = rng.choice(3, size=m, p=_SHARES)
        rate = _RATES[kind]
        correct = rng.binomial(n, rate)
        pairs = correct * (n - correct) / (n * (n - 1.0))
        gradients = 0.5 * (rate * (1 - rate))[:, None] * rng.normal(size=(m, rank))
        gradients[:, :2] += means[kind]
        gradients *= (pairs / (rate * (1 - rate)))[:, None]
        gradients += 0.3 * np.sqrt(pairs)[:, None] * rng.normal(size=(m, rank))
        return gradients, unbiased_prompt_weight(correct, n, k)

    return sample


VANISHING: dict[str, Generator] = {
    "low rank, constant weights": low_rank,
    "isotropic": isotropic,
    "rare hard prompts": rare_hard,
    "heavy tails": heavy_tailed,
    "rollouts, no signal": rollouts(0.0),
}
_HARD = {"rare": 0.05, "weights": (0.02, 8.0)}
ORTHOGONAL: dict[str, Generator] = {
    "orthogonal, rank 2, weak": two_kinds(2, (1, 1)),
    "orthogonal, rank 2, strong": two_kinds(2, (8, 8)),
    "orthogonal, rank 3": two_kinds(3, (3, 3)),
    "orthogonal, rank 40, weak": two_kinds(40, (1, 1)),
    "orthogonal, rank 40, strong": two_kinds(40, (6, 6)),
    "orthogonal, rare hard, weak": two_kinds(5, (1, 1), **_HARD),
    "orthogonal, rare hard, strong": two_kinds(5, (5, 5), **_HARD),
    "orthogonal, heavy tails": two_kinds(10, (2, 2), tail=2.5),
    "orthogonal, strong update": two_kinds(3, (1, 8)),
    "orthogonal, strong pass@1": two_kinds(3, (8, 1)),
    "rollouts, weak": rollouts(1.0),
    "rollouts, strong": rollouts(5.0),
}
NULLS: dict[str, Generator] = VANISHING | ORTHOGONAL
CONTROLS: dict[str, Generator] = {
    "opposed": two_kinds(3, (3, 3), cosine=-0.2),
    "rollouts, opposed": rollouts(5.0, cosine=-0.2),
}


# Looks at the same prompts ----------------------------------------------------------------------


_FIRST, _EACH = 12, 2  # rollouts of a prompt


def kinds_panel(
    rank: int,
    strength: tuple[float, float],
    rare: float = 0.3,
    weights: tuple[float, float] = (0.25, 3.0),
    tail: float | None = None,
    own: float = 0.1,
) -> Panel:
    """Common and rare prompts, as :func:`two_kinds`; of a look's noise the share ``own`` stays."""
    means = _two_means(rank, strength, rare, weights, tail)

    def looks(rng: np.random.Generator, m: int) -> Iterator[Sample]:
        def noise() -> np.ndarray:
            heavy = 1.0 if tail is None else rng.standard_t(tail, size=(m, 1))
            return heavy * rng.normal(size=(m, rank))

        kind = (rng.random(m) < rare).astype(int)
        kept, scale = math.sqrt(own) * noise(), math.sqrt(_EACH / _FIRST)
        kept[:, :2] += means[kind]
        while True:
            yield kept + scale * math.sqrt(1 - own) * noise(), np.asarray(weights)[kind]
            scale = 1.0

    return looks


def rollouts_panel(strength: float, own: float = 0.5, cosine: float = 0.0, k: int = 8) -> Panel:
    """As in a run, as :func:`rollouts`; baselines and weights are those of the last looks' counts.

    Args:
        strength, cosine, k: as there.
        own: size of a prompt's own direction in ∇p.
    """
    rank = 12
    means = _run_means(strength, rank, k, cosine)

    def looks(rng: np.random.Generator, m: int) -> Iterator[Sample]:
        kind = rng.choice(3, size=m, p=_SHARES)
        p = _RATES[kind]
        true = own * (p * (1 - p))[:, None] * rng.normal(size=(m, rank))
        true[:, :2] += means[kind]

        def seen(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
            noise = 1.2 * np.sqrt(variance)[:, None] * rng.normal(size=(m, rank))
            return mean[:, None] * true + noise

        first, past = rng.binomial(_FIRST, p), []
        pairs = first * (_FIRST - first) / (_FIRST * (_FIRST - 1.0))
        yield seen(pairs / (p * (1 - p)), pairs / _FIRST), unbiased_prompt_weight(first, _FIRST, k)
        while True:
            last = past[-_FIRST // _EACH :]  # as ``PromptCounts.recent`` has it
            short = _EACH * len(last) < _FIRST
            c, n = sum(last) + short * first, _EACH * len(last) + short * _FIRST
            right, b = rng.binomial(_EACH, p), c / n
            past.append(right)
            mean = (right * (1 - b) / p + (_EACH - right) * b / (1 - p)) / _EACH
            variance = (right * (1 - b) ** 2 + (_EACH - right) * b**2) / _EACH**2
            yield seen(mean, variance), unbiased_prompt_weight(c + 1, n + 2, k)

    return looks


PANELS: dict[str, Panel] = {
    "panel, rank 2, vanishing": kinds_panel(2, (0, 0)),
    "panel, rank 2, weak": kinds_panel(2, (1, 1)),
    "panel, rank 2, strong": kinds_panel(2, (8, 8)),
    "panel, rank 3, half its own": kinds_panel(3, (3, 3), own=0.5),
    "panel, rank 40, strong": kinds_panel(40, (6, 6)),
    "panel, rare hard": kinds_panel(5, (1, 1), **_HARD),
    "panel, heavy tails": kinds_panel(10, (2, 2), tail=2.5),
    "panel, no signal": rollouts_panel(0.0),
    "panel, weak": rollouts_panel(1.0),
    "panel, strong": rollouts_panel(5.0),
    "panel, strong, much its own": rollouts_panel(5.0, own=2.0),
}
PANEL_CONTROLS: dict[str, Panel] = {"panel, opposed": rollouts_panel(5.0, cosine=-0.2)}


def by_trainer(batch: KeptBatch) -> np.ndarray:
    """The weights that a panel's looks have."""
    return batch.trainer_weights


def panel_batches(panel: Panel, rng: np.random.Generator, m: int) -> Iterator[KeptBatch]:
    """Its looks as they are kept."""
    n = _FIRST
    for gradients, weights in panel(rng, m):
        zeros = np.zeros(m)
        yield KeptBatch(gradients @ gradients.T, zeros, zeros, weights, n)
        n = _EACH
