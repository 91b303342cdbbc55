"""From verified rollouts to evidence: counts, alignment under several weights, prompt weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from passk_guard.alignment import Alignment, alignment_curve, weighted_alignment
from passk_guard.errors import ProbeError
from passk_guard.passk import pass_at_k, unbiased_prompt_weight
from passk_guard.rollouts import RolloutGroup, counts

__all__ = [
    "AlignmentEvidence",
    "alignment_evidence",
    "enough_signal",
    "sampled_pass_at_k",
    "usable_groups",
]


@dataclass(frozen=True)
class AlignmentEvidence:
    """Alignment of one batch; ``target`` and ``update`` are ``None`` without signal.

    Attributes:
        curve: for k = 1 to n-1.
        target: at the k that the run optimises.
        update: under the weights in force.
        weights: ``(m,)`` those weights.
    """

    curve: list[Alignment]
    target: Alignment | None
    update: Alignment | None
    weights: np.ndarray = field(repr=False)


def enough_signal(groups: Sequence[RolloutGroup]) -> bool:
    """Whether at least two prompts have both right and wrong rollouts: pairs are compared."""
    return sum(group.has_signal for group in groups) >= 2


def usable_groups(groups: Sequence[RolloutGroup], k: int) -> list[RolloutGroup]:
    """Drop unscorable rollouts, and prompts left with too few for ``k``.

    Raises:
        ProbeError: fewer than 4 prompts are left.
    """
    kept = [group.scorable() for group in groups]
    kept = [group for group in kept if group.n > k]
    if len(kept) < 4:
        scored = sum(group.scorable().n for group in groups)
        total = sum(group.n for group in groups)
        raise ProbeError(
            f"only {len(kept)} of {len(groups)} prompts have more than k={k} scored rollouts: the "
            f"verifier scored {scored} of {total} (None and NaN count as unscorable)"
        )
    return kept


def alignment_evidence(
    gramian: Tensor | None,
    groups: Sequence[RolloutGroup],
    *,
    k: int,
    pass1_weight: float,
    passk_objective: bool,
    watch: str,
) -> AlignmentEvidence:
    """Alignment for every k and for the update in force.

    Args:
        gramian: ``(m, m)`` of per-prompt gradients; ``None`` where they were not taken.
        groups: the ``m`` prompts.
        k: the objective's.
        pass1_weight: λ, the objective's.
        passk_objective: whether the run trains on a pass@k objective that the guard installed.
        watch: ``"update"`` or ``"target_k"``.
    """
    correct, n = counts(groups)
    passk_weights = np.asarray(unbiased_prompt_weight(correct, n, k))
    scale = _host_weights(groups)
    if watch == "target_k" or (scale is None and not passk_objective):
        weights = passk_weights
    else:
        weights = np.ones(len(groups)) if scale is None else scale
        if passk_objective:
            weights = weights * ((1 - pass1_weight) * passk_weights + pass1_weight)
    if gramian is None or not enough_signal(groups):
        return AlignmentEvidence([], None, None, weights)
    curve = alignment_curve(gramian, correct, n)
    return AlignmentEvidence(
        curve, curve[k - 1], weighted_alignment(gramian, weights, k=k), weights
    )


def _host_weights(groups: Sequence[RolloutGroup]) -> np.ndarray | None:
    """The prompt weights that the host trainer's own advantages amount to, where they are known.

    With two-valued rewards and centred advantages the trainer's gradient on a prompt is
    ``(n-1)(A_right - A_wrong) ĝ``. With shaped rewards the means over right and over wrong
    rollouts take their place, an approximation.
    """
    if any(group.advantages is None for group in groups):
        return None
    weights = np.zeros(len(groups))
    for i, group in enumerate(groups):
        if group.has_signal and group.advantages is not None:
            right = group.success > 0.5
            gap = group.advantages[right].mean() - group.advantages[~right].mean()
            weights[i] = (group.n - 1) * float(gap)
    return weights


def sampled_pass_at_k(groups: Sequence[RolloutGroup], k: int) -> float:
    """Mean unbiased pass@k over the prompts."""
    correct, n = counts(groups)
    return float(np.mean(pass_at_k(correct, n, k)))
