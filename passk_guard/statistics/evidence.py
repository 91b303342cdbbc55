"""From verified rollouts to evidence: alignment under several weights, prompt weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from passk_guard.objectives.live import LiveObjective
from passk_guard.objectives.training_weight import TrainingGroups, trainer_prompt_weight
from passk_guard.passk import pass_at_k, unbiased_prompt_weight
from passk_guard.rollouts.group import RolloutGroup, counts, enough_signal
from passk_guard.statistics.alignment import Alignment, alignment_curve, weighted_alignment

__all__ = [
    "AlignmentEvidence",
    "alignment_evidence",
    "sampled_pass_at_k",
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

    @property
    def opposing(self) -> list[int]:
        """Prompts whose agreement x weight is most negative, worst first, ten at most."""
        if self.update is None:
            return []
        contribution = self.update.agreement * self.weights
        return [int(i) for i in np.argsort(contribution)[:10] if contribution[i] < 0]


def alignment_evidence(
    gramian: Tensor | None,
    groups: Sequence[RolloutGroup],
    *,
    k: int,
    objective: LiveObjective | None,
    watch: str,
    training: TrainingGroups | None = None,
) -> AlignmentEvidence:
    """Alignment for every k and for the update in force.

    Args:
        gramian: ``(m, m)`` of per-prompt gradients; ``None`` where they were not taken.
        groups: the ``m`` prompts.
        k: the target.
        objective: the live one that the guard installed, if any.
        watch: ``"update"`` or ``"target_k"``.
        training: the groups that the run trains on, where they are known.
    """
    correct, n = counts(groups)
    weights = np.asarray(unbiased_prompt_weight(correct, n, k))
    if watch == "update":
        seen = [_trainer_weight(group) for group in groups]
        if objective is not None or all(trainer_weight is not None for trainer_weight in seen):
            pairs = zip(groups, seen, strict=True)
            weights = np.array([_in_force(*pair, objective, training) for pair in pairs])
    if gramian is None or not enough_signal(groups):
        return AlignmentEvidence([], None, None, weights)
    curve = alignment_curve(gramian, correct, n)
    return AlignmentEvidence(
        curve, curve[k - 1], weighted_alignment(gramian, weights, k=k), weights
    )


def _in_force(
    group: RolloutGroup,
    trainer_weight: float | None,
    objective: LiveObjective | None,
    training: TrainingGroups | None,
) -> float:
    """Weight of a prompt in training; without a signal its gradient is zero and it has none."""
    if not group.has_signal:
        return 0.0
    if objective is None:
        if trainer_weight is None:
            return 0.0
        return trainer_prompt_weight(trainer_weight, training, group.correct, group.n)
    return objective.prompt_weight(group.correct, group.n, trainer_weight, training)


def _trainer_weight(group: RolloutGroup) -> float | None:
    """The prompt weight that the host trainer's own advantages amount to in a probe's groups.

    With two-valued rewards and centred advantages the trainer's gradient on a prompt is
    ``(n-1)/n (A_right - A_wrong) ĝ``. With shaped rewards the means over right and over wrong
    rollouts take their place, an approximation.
    """
    if group.advantages is None:
        return None
    if not group.has_signal:
        return 0.0
    right = group.success > 0.5
    gap = group.advantages[right].mean() - group.advantages[~right].mean()
    return (group.n - 1) / group.n * float(gap)


def sampled_pass_at_k(groups: Sequence[RolloutGroup], k: int) -> tuple[float, float]:
    """Mean unbiased pass@k over the prompts, two at least, and its standard error."""
    solved = pass_at_k(*counts(groups), k)
    return float(np.mean(solved)), float(np.std(solved, ddof=1) / np.sqrt(len(groups)))
