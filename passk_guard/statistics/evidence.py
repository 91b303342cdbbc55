"""From verified rollouts to evidence: alignment under several weights, prompt weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from torch import Tensor

from passk_guard.objectives.live import LiveObjective
from passk_guard.objectives.training_weight import TrainingGroups, trainer_prompt_weight
from passk_guard.passk import pass_at_k, unbiased_prompt_weight
from passk_guard.rollouts.group import RolloutGroup, counts, enough_signal
from passk_guard.statistics.alignment import Alignment, alignment_curve, weighted_alignment
from passk_guard.statistics.kept_batches import KeptBatch


class WeightsInForce:
    """What the update in force weighs the prompts of a batch by.

    Good for one look: it keeps weights as the objective stood when they were first asked for.

    Args:
        k: the target.
        objective: the live one that the guard installed, if any.
        watch: ``"update"`` or ``"target_k"``.
        training: the groups that the run trains on, where they are known.
    """

    def __init__(
        self,
        k: int,
        objective: LiveObjective | None,
        watch: str,
        training: TrainingGroups | None = None,
    ) -> None:
        self._k, self._objective = k, objective
        self._watch, self._training = watch, training
        self._in_force = cache(self._of_prompt)  # most prompts share their counts with others

    def sees(self, batch: KeptBatch) -> bool:
        """Whether these are the update's own weights, or those that the user asked to watch.

        If not, as where a loss is out of reach, the target k's stand in for what is not seen.
        """
        if self._watch == "target_k" or self._stands_alone:
            return True
        return not bool(np.isnan(batch.trainer_weights).any())

    @property
    def _stands_alone(self) -> bool:
        return self._objective is not None and not self._objective.beside_trainer

    def __call__(self, batch: KeptBatch) -> np.ndarray:
        """``(m,)`` prompt weights."""
        seen = not bool(np.isnan(batch.trainer_weights).any())
        if self._watch == "target_k" or (self._objective is None and not seen):
            return np.asarray(unbiased_prompt_weight(batch.correct, batch.n, self._k))
        columns = (batch.correct, batch.n, batch.trainer_weights)
        # NaN is no key: it is not equal to itself.
        return np.array(
            [
                self._in_force(int(c), int(n), None if np.isnan(weight) else float(weight))
                for c, n, weight in zip(*columns, strict=True)
            ]
        )

    def _of_prompt(self, correct: int, n: int, trainer_weight: float | None) -> float:
        """Without a signal a prompt's gradient is zero and it has no weight."""
        if not 0 < correct < n:
            return 0.0
        if self._objective is not None:
            return self._objective.prompt_weight(correct, n, trainer_weight, self._training)
        assert trainer_weight is not None, "else the target k's weights were taken"
        return trainer_prompt_weight(trainer_weight, self._training, correct, n)


def kept_batch(gramian: Tensor, groups: Sequence[RolloutGroup]) -> KeptBatch:
    """What of a batch is worth keeping.

    Args:
        gramian: ``(m, m)`` of per-prompt gradients.
        groups: the ``m`` prompts.
    """
    correct, n = counts(groups)
    seen = [_trainer_weight(group) for group in groups]
    known = [weight for weight in seen if weight is not None]
    # Weights of some prompts alone are the weights of no update.
    weights = np.array(known) if len(known) == len(seen) else np.full(len(seen), np.nan)
    return KeptBatch(gramian.float().numpy(), np.array(correct), np.array(n), weights)


@dataclass(frozen=True)
class AlignmentEvidence:
    """Alignment of one batch; ``target`` and ``update`` are ``None`` without signal.

    Attributes:
        curve: for k = 1 to n-1.
        target: at the k that the run optimises.
        update: under the weights in force.
        weights: ``(m,)`` those weights.
        gramian: ``(m, m)`` of per-prompt gradients, where they were taken.
    """

    curve: list[Alignment]
    target: Alignment | None
    update: Alignment | None
    weights: np.ndarray = field(repr=False)
    gramian: np.ndarray | None = field(repr=False)

    @property
    def opposing(self) -> list[int]:
        """Prompts whose agreement x weight is most negative, worst first, ten at most."""
        if self.update is None:
            return []
        contribution = self.update.agreement * self.weights
        return [int(i) for i in np.argsort(contribution)[:10] if contribution[i] < 0]


def alignment_evidence(
    batch: KeptBatch | None, groups: Sequence[RolloutGroup], k: int, weigh: WeightsInForce
) -> AlignmentEvidence:
    """Alignment for every k and for the update in force.

    Args:
        batch: gradients and counts; ``None`` where gradients were not taken.
        groups: the ``m`` prompts.
        k: the target.
        weigh: gives the weights in force.
    """
    if batch is None:
        counted = kept_batch(torch.zeros(len(groups), len(groups), device="cpu"), groups)
        return AlignmentEvidence([], None, None, weigh(counted), None)
    weights = weigh(batch)
    if not enough_signal(groups):
        return AlignmentEvidence([], None, None, weights, batch.gramian)
    curve = alignment_curve(batch.gramian, batch.correct, batch.n)
    update = weighted_alignment(batch.gramian, weights, k=k)
    return AlignmentEvidence(curve, curve[k - 1], update, weights, batch.gramian)


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
