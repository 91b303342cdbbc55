"""What else one look tells: how concentrated the policy is, and how lopsided the weights are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from passk_guard.passk import binomial_ratio
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.statistics.alignment import Alignment
from passk_guard.statistics.inference_mismatch import InferenceMismatch, inference_mismatch
from passk_guard.statistics.prompt_counts import Counts


@dataclass(frozen=True)
class Diagnostics:
    """Diagnostics of one batch; none of them raises an alarm (Yu 2025, arXiv 2511.16231).

    Attributes:
        entropy: of the policy, nats per sampled token, over all rollouts.
        top1_mass: probability of a prompt's likeliest rollout among those sampled, mean over
            prompts; near 1 where the policy has made up its mind. Near 0 for long completions,
            where ``top_log_prob`` still moves.
        top_log_prob: log-probability of that rollout, nats per token, mean over prompts.
        hard_weight: share of the pass@k weight that lies on prompts with at most one right
            rollout. There a verifier's false positives rule: 1 % of them look like pass@8 = .08.
        weight_ratio: largest prompt weight in force among prompts with a signal, as a multiple of
            their mean; ``None`` without signal.
        normalised_agreement: ``E_w[a] / (E[w] ‖∇J_1‖²)`` under the weights in force, E[w] over the
            prompts with a signal: 1 where weights do not matter, below 0 in a conflict; ``None``
            where a denominator is not positive.
        inference: how far what samples is from the model; ``None`` where the model samples itself,
            or nothing else is known.
    """

    entropy: float
    top1_mass: float
    top_log_prob: float
    hard_weight: float
    weight_ratio: float | None
    normalised_agreement: float | None
    inference: InferenceMismatch | None = None


def diagnose(
    groups: Sequence[RolloutGroup],
    log_probs: Sequence[Tensor],
    counts: Counts,
    k: int,
    weights: np.ndarray,
    update: Alignment | None,
) -> Diagnostics:
    """Diagnostics from what a look has at hand.

    Args:
        groups: prompts with the same number of rollouts at every look: the likeliest of more would
            be likelier.
        log_probs: ``(n, L)`` for each, under the present policy.
        counts: of the last looks' rollouts of the ``m`` prompts.
        k: of pass@k.
        weights: ``(m,)`` prompt weights in force.
        update: alignment under them.
    """
    correct, n = (np.asarray(values, float) for values in counts)
    k = min(k, int(n.min()))
    passk_weight = k * binomial_ratio(n - correct, n, k - 1)  # unbiased for w_k(p)
    total = float(passk_weight.sum())
    nats = tokens = 0.0
    top, top_per_token = [], []
    for group, scores in zip(groups, log_probs, strict=True):
        length = group.completion_mask.sum(-1).clamp(min=1).double().cpu()
        sequence = scores.double().sum(-1)
        nats, tokens = nats - float(sequence.sum()), tokens + float(length.sum())
        best = int(sequence.argmax())
        top.append(float(sequence[best].exp()))
        top_per_token.append(float(sequence[best] / length[best]))
    signal = (correct > 0) & (correct < n)
    mean_weight = float(weights[signal].mean()) if signal.any() else 0.0
    normalised = None
    if update is not None and update.pass1_norm2 > 0 and mean_weight > 0:
        normalised = update.inner / (mean_weight * update.pass1_norm2)
    return Diagnostics(
        entropy=nats / max(tokens, 1.0),
        top1_mass=float(np.mean(top)),
        top_log_prob=float(np.mean(top_per_token)),
        hard_weight=float(passk_weight[correct <= 1].sum()) / total if total > 0 else 0.0,
        weight_ratio=float(weights[signal].max()) / mean_weight if mean_weight > 0 else None,
        normalised_agreement=normalised,
        inference=inference_mismatch(groups, log_probs),
    )
