"""Which held-out prompts work against pass@1, and which of them against each other.

With the prompt weights in force ``W`` (m,) and the Gramian ``K`` (m, m) of per-prompt pass@1
gradients, the inner product of the update with the pass@1 gradient is a sum over prompts, and a sum
over pairs (the U-statistic of :mod:`passk_guard.statistics.alignment`; its diagonal is left out)::

    ⟨∇J, ∇J_1⟩^ = Σ_i W_i a^_i / m = Σ_{i<j} (W_i + W_j) K_ij / (m(m-1))

*Prompts* are ranked by their term ``W_i a^_i``, most negative first: this is what the alarm counts.

*Pairs* are ranked by their cosine ``K_ij / √(K_ii K_jj)`` among those whose term is negative: how
squarely two prompts oppose each other, whatever the size of their gradients. What a pair costs is
its share, shown beside it. ``K_ii`` holds a prompt's own sampling noise, so the cosine is also the
pair's inner product in units of what noise alone would give, up to a factor that all pairs share
(``d^-1/2`` for independent noise of effective dimension d): a ranking by signal to noise. And where
two rows want different answers to one text and the policy wavers between the two, both
gradients are multiples of the *same* vector, with opposite signs, whichever rollouts were drawn: a
cosine of -1 in a single probe.

This was chosen by measurement on ambiguous arithmetic, where such pairs are known (seeds 0 and 1,
then judged on 2 to 4; five probes at a time). Of the first 20 the mean number with one text and two
answers is 20 by the cosine, 3 to 5 by the term, 3 to 7 by ``K_ij``, 9 to 13 by term x cosine⁴. The
rest is not all noise: much of it is ``1 2`` against ``2 1`` with another answer, which a model
of sums hardly tells apart. Where the costliest pairs matter more than the clearest, sort by share.

One probe is noisy, so the last ones are pooled: a row's figures are averaged, a pair's inner
products and squared norms summed, ``Σ K_ij / √(Σ K_ii Σ K_jj)``. All are of the same prompts,
less those without a score at a look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from passk_guard.reporting.pictured import Pictured

WINDOW = 5
"""Probes that are looked at together."""

_ROWS = 1 << 31  # more than any pool has


@dataclass(frozen=True)
class PromptConflict:
    """A prompt, as seen in the last probes.

    Attributes:
        row: its id in the held-out pool.
        pass_rate: share of right rollouts.
        agreement: ``⟨g, ∇J_1⟩``, in squared gradient norms; negative: solving it more often
            lowers pass@1.
        weight: in the update in force.
        share: of the term weight x agreement in the sum of all prompts' absolute terms in its
            probe, with its sign: -0.1 is a tenth of all that moves pass@1, downwards.
        looks: probes that it was in.
    """

    row: int
    pass_rate: float
    agreement: float
    weight: float
    share: float
    looks: int


@dataclass(frozen=True)
class PairConflict:
    """Two prompts that pull against each other.

    Attributes:
        first: the one that is solved more often.
        second: the other.
        cosine: of their gradients, in [-1, 1].
        share: as of a prompt, of the pair's term in the sum of all pairs' absolute terms.
        looks: probes that they were in together.
    """

    first: PromptConflict
    second: PromptConflict
    cosine: float
    share: float
    looks: int


@dataclass(frozen=True)
class Conflicts:
    """Worst first.

    Attributes:
        steps: of the probes that it rests on; none of them without signal.
        prompts: those that lower pass@1.
        pairs: those that interfere.
    """

    steps: tuple[int, ...]
    prompts: tuple[PromptConflict, ...]
    pairs: tuple[PairConflict, ...]


def find_conflicts(history: Sequence[Pictured], most: int = 20) -> Conflicts:
    """Prompts and pairs behind a conflict, from the last :data:`WINDOW` probes.

    Args:
        history: probes, oldest first.
        most: prompts, and pairs, to name.
    """
    probes = [p for p in history[-WINDOW:] if p.update_alignment is not None]
    if not probes:
        return Conflicts((), (), ())
    prompts = _prompts(probes)
    worst = sorted((p for p in prompts.values() if p.share < 0), key=lambda p: p.share)
    pairs = _pairs(probes, prompts, most)
    return Conflicts(
        tuple(p.step for p in probes if p.step is not None), tuple(worst[:most]), pairs
    )


def _prompts(probes: Sequence[Pictured]) -> dict[int, PromptConflict]:
    seen: dict[int, list[np.ndarray]] = {}
    for probe in probes:
        assert probe.update_alignment is not None
        agreement = probe.update_alignment.agreement
        terms = _shares(probe.weights * agreement)
        figures = np.stack([probe.pass_rates, agreement, probe.weights, terms], 1)  # (m, 4)
        for row, values in zip(probe.row_ids, figures, strict=True):
            seen.setdefault(row, []).append(values)
    return {
        row: PromptConflict(row, rate, agreement, weight, share, len(values))
        for row, values in seen.items()
        for rate, agreement, weight, share in [np.mean(values, 0).tolist()]
    }


def _pairs(
    probes: Sequence[Pictured], prompts: dict[int, PromptConflict], most: int
) -> tuple[PairConflict, ...]:
    codes, figures = (
        np.concatenate(parts, -1) for parts in zip(*map(_pairs_of, probes), strict=True)
    )
    pairs, where, looks = np.unique(codes, return_inverse=True, return_counts=True)
    inner, one, other, share = (np.bincount(where, f, minlength=len(pairs)) for f in figures)
    cosine = np.maximum(inner / np.sqrt(one * other), -1.0)  # rounding may pass it
    found: list[PairConflict] = []
    for at in np.lexsort((share, cosine)):
        if len(found) == most or cosine[at] >= 0:
            break
        if share[at] < 0:
            both = [prompts[row] for row in divmod(int(pairs[at]), _ROWS)]
            first, second = sorted(both, key=lambda p: -p.pass_rate)
            mean = float(share[at] / looks[at])
            found.append(PairConflict(first, second, float(cosine[at]), mean, int(looks[at])))
    return tuple(found)


def _pairs_of(probe: Pictured) -> tuple[np.ndarray, np.ndarray]:
    """Of all pairs that have gradients: both ids in one number, ``(pairs,)``, and four figures.

    The figures, ``(4, pairs)``: inner product, squared norm of the lower id's gradient and of the
    other's, share.
    """
    order = np.argsort(probe.row_ids)  # a pair has one name, wherever it is met
    rows, weights = np.array(probe.row_ids)[order], probe.weights[order]
    kernel = np.asarray(probe.gramian, dtype=float)[np.ix_(order, order)]
    norms = np.diag(kernel)
    i, j = np.triu_indices(len(kernel), 1)
    share = _shares((weights[i] + weights[j]) * kernel[i, j])
    alive = (norms[i] > 0) & (norms[j] > 0)
    figures = np.stack([kernel[i, j], norms[i], norms[j], share])
    return (rows[i] * _ROWS + rows[j])[alive], figures[:, alive]


def _shares(terms: np.ndarray) -> np.ndarray:
    total = np.abs(terms).sum()
    return terms / total if total > 0 else terms
