"""From verified rollouts to evidence: alignment under several weights, prompt weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from passk_guard.objectives.live import LiveObjective
from passk_guard.objectives.training_weight import (
    TrainingGroups,
    hypergeometric,
    scale_of,
    trainer_prompt_weight,
    unscaled,
)
from passk_guard.passk import unbiased_prompt_weight
from passk_guard.rollouts.group import RolloutGroup, counts
from passk_guard.runtime.stored import Unfit, tensor
from passk_guard.statistics.alignment import Alignment, alignment_curve, weighted_alignment
from passk_guard.statistics.kept_batches import KeptBatch
from passk_guard.statistics.prompt_counts import Counts


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


class SeenWeights:
    """The prompt weights that the trainer's own advantages amount to, by right rollouts of n.

    They are seen on the reference's groups. A look has too few rollouts of a prompt to see them
    again, but for two-valued rewards they are a matter of the count alone.

    Args:
        weights: ``(n + 1,)``, free of the scale that the trainer gave these groups; NaN where no
            group had that count, everywhere where advantages are not seen.
        training: the groups that the run trains on, where they are known.
    """

    def __init__(self, weights: np.ndarray, training: TrainingGroups | None) -> None:
        self._weights, self._training = weights, training
        self._at = cache(self._of_prompt)

    @classmethod
    def on(cls, groups: Sequence[RolloutGroup], training: TrainingGroups | None) -> SeenWeights:
        """From the reference's groups."""
        n = max(group.n for group in groups)
        found: dict[int, list[float]] = {}
        for group in groups:
            if group.advantages is None:
                return cls(np.full(n + 1, np.nan), training)
            if group.has_signal and group.n == n:
                weight = _trainer_weight(group)
                if training is not None:
                    weight = unscaled(weight, training, group.correct, n)
                found.setdefault(group.correct, []).append(weight)
        weights = np.full(n + 1, np.nan)
        for correct, values in found.items():
            weights[correct] = np.mean(values)
        return cls(weights, training)

    def of_earlier(self, earlier: Counts) -> np.ndarray:
        """``(m,)`` on gradients whose baseline is of earlier rollouts, see :class:`KeptBatch`."""
        return np.array([self._at(int(c), int(n)) for c, n in zip(*earlier, strict=True)])

    def _of_prompt(self, correct: int, n: int) -> float:
        known = np.flatnonzero(~np.isnan(self._weights))
        if not known.size:
            return np.nan
        # Leave-one-out weights on n rollouts are a polynomial of degree n - 2 in the pass rate.
        drawn = min(len(self._weights) - 3, n)
        at = np.interp(np.arange(drawn + 1) + 1, known, self._weights[known])
        weight = float(hypergeometric(drawn, correct, n) @ at)
        scaled = self._training is not None and self._training.scaled
        return weight * float(scale_of(n + 2)[correct + 1]) if scaled else weight

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on after a resume."""
        weights = torch.from_numpy(np.nan_to_num(self._weights, nan=-np.inf))
        return {"weights": weights, "counts": len(weights)}

    @classmethod
    def load(cls, state: Mapping[str, Any], training: TrainingGroups | None) -> SeenWeights:
        """From what :meth:`state_dict` gave.

        Raises:
            Unfit: it is not whole.
        """
        weights = tensor(state, "weights", state["counts"], finite=False).numpy()
        if np.isnan(weights).any():
            raise Unfit("weights must not be NaN")
        return cls(np.where(np.isneginf(weights), np.nan, weights), training)


def reference_batch(gramian: Tensor, groups: Sequence[RolloutGroup]) -> KeptBatch:
    """What of the reference is worth keeping.

    Args:
        gramian: ``(m, m)`` of leave-one-out gradients.
        groups: the ``m`` prompts.
    """
    correct, n = (np.array(values) for values in counts(groups))
    if any(group.advantages is None for group in groups):
        seen = np.full(len(groups), np.nan)  # weights of some prompts are the weights of no update
    else:
        seen = np.array([_trainer_weight(group) for group in groups])
    return KeptBatch(gramian.float().numpy(), correct, n, seen, int(n.max()))


def look_batch(gramian: Tensor, earlier: Counts, seen: SeenWeights, rollouts: int) -> KeptBatch:
    """What of a look is worth keeping.

    Args:
        gramian: ``(m, m)`` of gradients whose baselines are of earlier rollouts.
        earlier: counts of these.
        seen: the trainer's own weights.
        rollouts: per prompt.
    """
    correct, n = earlier
    weights = seen.of_earlier(earlier)
    return KeptBatch(gramian.float().numpy(), correct + 1, n + 2, weights, rollouts)


@dataclass(frozen=True)
class AlignmentEvidence:
    """Alignment of one look; ``target`` and ``update`` are ``None`` without signal.

    Attributes:
        curve: for k = 1, 2, ...
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
    batch: KeptBatch, k: int, most: int, weigh: WeightsInForce, *, measured: bool = True
) -> AlignmentEvidence:
    """Alignment for every k and for the update in force.

    Args:
        batch: gradients and counts.
        k: the target.
        most: largest k of the curve, if all prompts have rollouts enough.
        weigh: gives the weights in force.
        measured: whether gradients were taken at all.
    """
    weights = weigh(batch)
    if not measured:
        return AlignmentEvidence([], None, None, weights, None)
    if np.count_nonzero(np.diag(batch.gramian)) < 2:
        return AlignmentEvidence([], None, None, weights, batch.gramian)
    most = min(most, int(batch.n.min()) - 1)
    curve = alignment_curve(batch.gramian, batch.correct, batch.n, list(range(1, most + 1)))
    update = weighted_alignment(batch.gramian, weights, k=k)
    return AlignmentEvidence(curve, curve[k - 1], update, weights, batch.gramian)


def _trainer_weight(group: RolloutGroup) -> float:
    """The prompt weight that the host trainer's own advantages amount to in the reference's groups.

    With two-valued rewards and centred advantages the trainer's gradient on a prompt is
    ``(n-1)/n (A_right - A_wrong) ĝ``. With shaped rewards the means over right and over wrong
    rollouts take their place, an approximation.
    """
    assert group.advantages is not None
    if not group.has_signal:
        return 0.0
    right = group.success > 0.5
    gap = group.advantages[right].mean() - group.advantages[~right].mean()
    return (group.n - 1) / group.n * float(gap)
