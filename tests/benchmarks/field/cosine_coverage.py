"""How honest the inner product and the cosine are on long completions, from probes of a bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from field.rollout_banks import K, N

from passk_guard.gradients.engine import EngineSettings, make_engine
from passk_guard.passk import prompt_weight, unbiased_prompt_weight
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.statistics.alignment import alignment_curve, weighted_alignment
from passk_guard.statistics.interval import Z95
from passk_guard.statistics.kept_batches import KeptBatch, KeptBatches

PROMPTS = 64


@dataclass(frozen=True)
class Bank:
    """Gradients of every prompt's 16 rollouts.

    Attributes:
        gramian: ``(prompts, prompts)`` of all of them.
        correct: ``(prompts,)`` right rollouts of 16.
    """

    gramian: np.ndarray
    correct: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """Of pass@8."""
        return np.asarray(unbiased_prompt_weight(self.correct, N, K))


def bank_of(policy: Any, groups: Sequence[RolloutGroup]) -> Bank:
    """By the guard's own engine, by all parameters, unsketched: 2 GB at full size."""
    engine = make_engine(policy, "hooks", EngineSettings(prompts=len(groups)))
    gramian = engine.gramian(groups, (0,))
    assert gramian is not None, "a Euclidean metric is always there"
    return Bank(gramian.numpy(), np.array([group.correct for group in groups]))


def true_parts(bank: Bank, weights: np.ndarray) -> np.ndarray:
    """``(3,)`` inner product, ``‖∇J_1‖²``, ``‖∇J‖²`` over all pairs of different prompts."""
    m = len(weights)
    apart = bank.gramian / (m * (m - 1))
    np.fill_diagonal(apart, 0.0)
    return np.array([weights @ apart.sum(1), apart.sum(), weights @ apart @ weights])


def cosine_of(parts: np.ndarray) -> float:
    return float(parts[0] / np.sqrt(parts[1] * parts[2])) if (parts[1:] > 0).all() else float("nan")


def cosine_error(bank: Bank) -> float:
    """Jackknife error of the cosine as one of all long sums, not of these: over prompts."""

    def without(kernel: np.ndarray) -> np.ndarray:
        """Sum over pairs of different prompts, without each prompt."""
        np.fill_diagonal(kernel, 0.0)
        left: np.ndarray = kernel.sum() - kernel.sum(0) - kernel.sum(1)
        return left

    K_all, W = bank.gramian.copy(), bank.weights
    inner, pass1, passk = map(without, (W[:, None] * K_all, K_all, np.outer(W, W) * K_all))
    if not (np.minimum(pass1, passk) > 0).all():
        return float("nan")
    return float(np.sqrt((len(W) - 1) * (inner / np.sqrt(pass1 * passk)).var()))


def probe(bank: Bank, rng: np.random.Generator) -> KeptBatch:
    """64 prompts, each probe from the whole bank, so that probes are independent.

    No prompt comes twice: of 1,536, a probe varies by 4 % less than one of a large population.
    """
    prompts = len(bank.correct)
    which = rng.choice(prompts, min(PROMPTS, prompts // 4), replace=False)
    return KeptBatch(
        bank.gramian[np.ix_(which, which)],
        bank.correct[which].astype(float),
        np.full(len(which), float(N)),
        np.full(len(which), np.nan),
        N,
    )


def updates(bank: Bank) -> dict[str, float]:
    """By name, a constant that pass@8's weights are lowered by.

    The pass@8 step less a multiple of the pass@1 step: as it is, at a right angle to pass@1, and
    mirrored there, so that the same gradients tell how the estimators do where there is a conflict.
    """
    parts = true_parts(bank, bank.weights)
    right = float(parts[0] / parts[1])
    return {"pass@8": 0.0, "right angle": right, "mirrored": 2 * right}


def coverage(bank: Bank, less: float, draws: int, seed: int) -> dict[str, Any]:
    """Of the update with weights ``ŵ_8 - less``: the truth, and how probes fare."""

    def weigh(batch: KeptBatch) -> np.ndarray:
        return np.asarray(unbiased_prompt_weight(batch.correct, batch.n, K)) - less

    rng = np.random.default_rng(seed)
    parts = true_parts(bank, bank.weights - less)
    probes = [probe(bank, rng) for _ in range(draws)]
    inner = [
        weighted_alignment(one.gramian, weigh(one))
        if less
        else alignment_curve(one.gramian, one.correct, one.n, [K])[0]
        for one in probes
    ]
    cosines = [KeptBatches([one]).cosine(weigh) for one in probes]
    return {
        "parts": parts.tolist(),
        "cosine": cosine_of(parts),
        "inner": inner_figures(inner, float(parts[0])),
        "interval": cosine_figures(cosines, cosine_of(parts)),
        "naive": naive_figures(np.array([plug_in(one, less) for one in probes]), parts),
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
    """Of the plug-in: ``found`` is ``(draws, 3)``."""
    value, error, cosine = found.T
    return {
        "bias_over_se": float((value.mean() - truth[0]) / np.sqrt((error**2).mean())),
        "inside": float((np.abs(value - truth[0]) <= Z95 * error).mean()),
        "cosine": float(cosine.mean()),
        "surely_below": float((value < -Z95 * error).mean()),
        "surely_above": float((value > Z95 * error).mean()),
    }
