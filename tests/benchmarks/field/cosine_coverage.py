"""How honest the inner product and the cosine are on long completions, from probes of a bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from field.rollout_banks import K, N

from passk_guard.gradients.engine import EngineSettings, make_engine
from passk_guard.passk import binomial_ratio, prompt_weight, unbiased_prompt_weight
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.statistics.alignment import alignment_curve, weighted_alignment
from passk_guard.statistics.interval import Z95
from passk_guard.statistics.kept_batches import KeptBatch, KeptBatches

PROMPTS = 64
POOLED = (1, 3, 8)


@dataclass(frozen=True)
class Chunks:
    """Gradients of every prompt's rollouts, 16 at a time.

    Attributes:
        gramian: ``(chunks, chunks)`` of all of them, those of one prompt in a row.
        correct: ``(chunks,)`` right rollouts of 16.
        prompts: how many there are.
    """

    gramian: np.ndarray
    correct: np.ndarray
    prompts: int

    @property
    def each(self) -> int:
        """Chunks of a prompt."""
        return len(self.correct) // self.prompts

    @property
    def owner(self) -> np.ndarray:
        """``(chunks,)`` the prompt that each belongs to."""
        return np.arange(self.prompts).repeat(self.each)


def chunk_gradients(policy: Any, groups: Sequence[RolloutGroup]) -> Chunks:
    """By the guard's own engine, by all parameters, unsketched: 2 GB at full size."""
    each = groups[0].n // N
    chunks = [g.those(slice(N * a, N * a + N)) for g in groups for a in range(each)]
    engine = make_engine(policy, "hooks", EngineSettings(prompts=len(chunks)))
    gramian = engine.gramian(chunks, (0,))
    assert gramian is not None, "a Euclidean metric is always there"
    return Chunks(gramian.numpy(), np.array([c.correct for c in chunks]), len(groups))


def pairs(chunks: Chunks, *, different: bool) -> np.ndarray:
    """``(chunks, chunks)`` shares that make a sum over pairs a mean over the population's.

    Args:
        chunks: of the bank.
        different: only pairs of different prompts. Else the prompts *are* the population, and two
            draws of it may be of one prompt, though never of one chunk; with one chunk of each
            prompt both are the same.
    """
    m, each = chunks.prompts, chunks.each
    same = chunks.owner[:, None] == chunks.owner
    if different or each == 1:
        return np.where(same, 0.0, 1 / (m * (m - 1) * each**2))
    share = np.where(same, 1 / (m**2 * each * (each - 1)), 1 / (m**2 * each**2))
    np.fill_diagonal(share, 0.0)
    return share


def true_parts(gramian: np.ndarray, weights: np.ndarray, share: np.ndarray) -> np.ndarray:
    """``(3,)`` inner product, ``‖∇J_1‖²``, ``‖∇J‖²`` over all pairs."""
    weighted = share * gramian
    return np.array([weights @ weighted.sum(1), weighted.sum(), weights @ weighted @ weights])


def cosine_of(parts: np.ndarray) -> float:
    return float(parts[0] / np.sqrt(parts[1] * parts[2])) if (parts[1:] > 0).all() else float("nan")


def truths(chunks: Chunks) -> dict[str, Any]:
    """Cosine of pass@8 and pass@1, up to three ways.

    ``population`` is what probes of these prompts estimate. ``different`` leaves out pairs of one
    prompt, as a larger population would. ``held_out`` weighs a chunk by what the prompt's *other*
    rollouts say of its success probability: it must agree with ``different``, and needs no argument
    about a weight that shares its rollouts with the gradient.
    """
    K_all, weights = chunks.gramian, chunk_weights(chunks)
    found = {"population": (weights, pairs(chunks, different=False))}
    if chunks.each > 1:
        apart, n = pairs(chunks, different=True), N * (chunks.each - 1)
        right = chunks.correct.reshape(chunks.prompts, -1).sum(1)[chunks.owner] - chunks.correct
        others = K * binomial_ratio(n - right, np.full(len(right), n), K - 1)
        found |= {"different": (weights, apart), "held_out": (others, apart)}
    return {
        name: {
            "parts": (parts := true_parts(K_all, W, share)).tolist(),
            "cosine": cosine_of(parts),
            "cosine_error": cosine_error(chunks, W),
        }
        for name, (W, share) in found.items()
    }


def cosine_error(chunks: Chunks, weights: np.ndarray) -> float:
    """Jackknife error of the cosine as one of all long sums, not of these: over prompts."""
    at = np.arange(0, len(weights), chunks.each)

    def without(kernel: np.ndarray) -> np.ndarray:
        """Sum over pairs of different prompts, without each prompt."""
        sums = np.add.reduceat(np.add.reduceat(kernel, at, 0), at, 1)
        np.fill_diagonal(sums, 0.0)
        left: np.ndarray = sums.sum() - sums.sum(0) - sums.sum(1)
        return left

    one, both = weights[:, None] * chunks.gramian, np.outer(weights, weights) * chunks.gramian
    inner, pass1, passk = (without(kernel) for kernel in (one, chunks.gramian, both))
    if not (np.minimum(pass1, passk) > 0).all():
        return float("nan")
    return float(np.sqrt((len(at) - 1) * (inner / np.sqrt(pass1 * passk)).var()))


def chunk_weights(chunks: Chunks) -> np.ndarray:
    return np.asarray(unbiased_prompt_weight(chunks.correct, N, K))


def probe(chunks: Chunks, rng: np.random.Generator) -> np.ndarray:
    """64 chunks, each probe from the whole bank, so that probes are independent.

    With one chunk of each of 1,536 prompts no prompt comes twice, and a probe varies by 4 % less
    than one of a large population. From 192 prompts prompts are drawn with replacement, for
    without it a probe would vary by a third less: one that comes twice gives another chunk, and
    what its two gradients have in common is in the truth as well.
    """
    size = min(PROMPTS, chunks.prompts // 4)
    order = rng.permuted(np.tile(np.arange(chunks.each), (chunks.prompts, 1)), axis=1)
    while True:
        drawn = np.sort(rng.integers(chunks.prompts, size=size))
        turn = np.arange(size) - np.searchsorted(drawn, drawn)  # how often it came before
        if turn.max() < chunks.each:
            return drawn * chunks.each + order[drawn, turn]


def batch_of(chunks: Chunks, which: np.ndarray) -> KeptBatch:
    return KeptBatch(
        chunks.gramian[np.ix_(which, which)],
        chunks.correct[which].astype(float),
        np.full(len(which), float(N)),
        np.full(len(which), np.nan),
    )


def updates(chunks: Chunks) -> dict[str, float]:
    """By name, a constant that pass@8's weights are lowered by.

    The pass@8 step less a multiple of the pass@1 step: as it is, at a right angle to pass@1, and
    mirrored there, so that the same gradients tell how the estimators do where there is a conflict.
    """
    parts = true_parts(chunks.gramian, chunk_weights(chunks), pairs(chunks, different=False))
    right = float(parts[0] / parts[1])
    return {"pass@8": 0.0, "right angle": right, "mirrored": 2 * right}


def coverage(chunks: Chunks, less: float, draws: int, seed: int) -> dict[str, Any]:
    """Of the update with weights ``ŵ_8 - less``: the truth, and how probes fare."""

    def weigh(batch: KeptBatch) -> np.ndarray:
        return np.asarray(unbiased_prompt_weight(batch.correct, batch.n, K)) - less

    rng = np.random.default_rng(seed)
    parts = true_parts(chunks.gramian, chunk_weights(chunks) - less, pairs(chunks, different=False))
    pooled: dict[int, list[Any]] = {size: [] for size in POOLED}
    single, naive = [], []
    for _ in range(draws):
        batches = [batch_of(chunks, probe(chunks, rng)) for _ in range(max(POOLED))]
        for size in POOLED:
            pooled[size].append(KeptBatches(batches[:size]).cosine(weigh))
        first = batches[0]
        if less == 0:
            single.append(alignment_curve(first.gramian, first.correct, first.n, [K])[0])
        else:
            single.append(weighted_alignment(first.gramian, weigh(first)))
        naive.append([plug_in(batch, less) for batch in batches])
    cosine = cosine_of(parts)
    return {
        "parts": parts.tolist(),
        "cosine": cosine,
        "inner": inner_figures(single, float(parts[0])),
        "pooled": {size: cosine_figures(found, cosine) for size, found in pooled.items()},
        "naive": {size: naive_figures(np.array(naive)[:, :size], parts) for size in POOLED},
        "draws": draws,
    }


def inner_figures(found: Sequence[Any], truth: float) -> dict[str, float]:
    value, se = np.array([one.inner for one in found]), np.array([one.se for one in found])
    typical = float(np.sqrt((se**2).mean()))
    return {
        "bias_over_se": (float(value.mean()) - truth) / typical,
        "se_over_sd": typical / float(value.std(ddof=1)),
        "inside": float(np.mean([one.low <= truth <= one.high for one in found])),
        "plain": float((np.abs(value - truth) <= Z95 * se).mean()),
        "truth_over_se": truth / typical,
    }


def cosine_figures(found: Sequence[Any], truth: float) -> dict[str, float]:
    z = np.array([one.z for one in found])
    return {
        "inside": float(np.mean([one.low <= truth <= one.high for one in found])),
        "width": float(np.mean([one.high - one.low for one in found])),
        "value": float(np.mean([one.value for one in found])),
        "sized": float(np.mean([one.sized for one in found])),
        "surely_below": float((z < -Z95).mean()),
        "surely_above": float((z > Z95).mean()),
    }


def plug_in(batch: KeptBatch, less: float) -> tuple[float, float, float]:
    """What not to do: prompts paired with themselves, weights of the same rollouts plugged in.

    Returns:
        Inner product, its jackknife error, cosine.
    """
    weights = prompt_weight(batch.correct / batch.n, K) - less
    m, row = len(weights), batch.gramian.sum(1)
    parts = np.array([weights @ row, row.sum(), weights @ batch.gramian @ weights]) / m**2
    H = 0.5 * (weights[:, None] + weights) * batch.gramian
    without = (H.sum() - 2 * H.sum(1) + np.diag(H)) / (m - 1) ** 2
    error = np.sqrt((m - 1) / m * ((without - without.mean()) ** 2).sum())
    return float(parts[0]), float(error), cosine_of(parts)


def naive_figures(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Of the plug-in: ``found`` is ``(draws, probes, 3)``, and a draw's probes are pooled."""
    value, cosine = found[..., 0].mean(1), found[..., 2]
    error = np.sqrt((found[..., 1] ** 2).sum(1)) / found.shape[1]
    return {
        "bias_over_se": float((value.mean() - truth[0]) / np.sqrt((error**2).mean())),
        "inside": float((np.abs(value - truth[0]) <= Z95 * error).mean()),
        "cosine": float(cosine.mean()),
        "surely_below": float((value < -Z95 * error).mean()),
        "surely_above": float((value > Z95 * error).mean()),
    }
