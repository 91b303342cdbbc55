"""A live pass@k objective inside a TRL trainer: its advantages are replaced, nothing else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from passk_guard.actions import warn
from passk_guard.integrations._trl_policy import restore_method, tapped_rewards
from passk_guard.objectives import PassKObjective

__all__ = ["TRLObjective"]


class TRLObjective:
    """Replaces the advantages of training batches by those of a live objective.

    ``A = A_trainer + (1-λ) s (A_k - A_1)`` with ``A_1 = r - r̄`` and ``s`` the trainer's reward
    scale, so that λ = 1 is the trainer untouched and what else it put in stays. Before the first
    replacement it checks that ``s A_1`` is what the trainer computed; if not (a TRL version or
    setting that scales in another way), it steps back for good, and says so.

    Args:
        trainer: a ``GRPOTrainer``.
        objective: live; ``k`` and ``pass1_weight`` may change between batches.
    """

    def __init__(self, trainer: Any, objective: PassKObjective) -> None:
        self._trainer = trainer
        self._objective = objective
        self._original: Any = None
        self._checked = False
        self.failed = False

    def install(self) -> None:
        """Start replacing advantages."""
        if self._original is None and not self.failed:
            self._original = self._trainer._generate_and_score_completions
            self._trainer._generate_and_score_completions = self._generate

    def remove(self) -> None:
        """Give the trainer its own advantages back."""
        if self._original is not None:
            restore_method(self._trainer, "_generate_and_score_completions", self._original)
            self._original = None

    def _generate(self, inputs: Any) -> Any:
        if not self._trainer.model.training or self.failed:  # evaluation, or the guard's own probe
            return self._original(inputs)
        with tapped_rewards(self._trainer) as tapped:
            output = self._original(inputs)
        own = output["advantages"]
        rewards = self._group_rewards(tapped[-1])
        pass1 = rewards - rewards.nanmean(-1, keepdim=True)
        scale = self._reward_scale(rewards)
        expected = self._local(scale * pass1, own)
        if not self._checked and not self._same(expected, own):
            return output
        weight = self._objective.pass1_weight
        if weight < 1.0:
            n = rewards.shape[-1]
            # A_1 here is (n-1)/n of the unbiased leave-one-out form; A_k is put on that scale.
            passk = self._local(scale * self._passk(rewards) * ((n - 1) / n), own)
            # What the trainer put in beside the rewards, free of rounding.
            rest = torch.where(_close(own, expected), 0.0, own - expected)
            output["advantages"] = weight * expected + (1 - weight) * passk + rest
        return output

    def _passk(self, rewards: Tensor) -> Tensor:
        alone = PassKObjective(self._objective.k, 0.0, self._objective.estimator)
        return alone(rewards)

    def _group_rewards(self, per_function: Tensor) -> Tensor:
        weights = self._trainer.reward_weights.to(per_function)
        rewards: Tensor = (per_function * weights).nansum(-1)
        rewards[per_function.isnan().all(-1)] = torch.nan
        return rewards.view(-1, self._trainer.num_generations)

    def _reward_scale(self, rewards: Tensor) -> Tensor:
        """``(groups, 1)``, what the trainer multiplies centred rewards with."""
        how = self._trainer.scale_rewards
        if how in ("none", False):
            return torch.ones_like(rewards[:, :1])
        if how == "batch":
            return (1 / (_nan_std(rewards.reshape(1, -1)) + 1e-4)).expand(len(rewards), 1)
        scale: Tensor = 1 / (_nan_std(rewards) + 1e-4)
        return scale

    def _local(self, advantages: Tensor, own: Tensor) -> Tensor:
        """This process's slice; unscorable rollouts get 0, as TRL gives them."""
        start = self._trainer.accelerator.process_index * len(own)
        return advantages.flatten()[start : start + len(own)].nan_to_num(nan=0.0).to(own)

    def _same(self, expected: Tensor, own: Tensor) -> bool:
        self._checked = bool(expected.any())  # an all-zero batch proves nothing
        if expected.shape == own.shape and bool(_close(own, expected).all()):
            return True
        self.failed = True
        if self._trainer.is_world_process_zero():
            warn(
                "this trainer's advantages are not the (scaled) centred rewards that were "
                "expected, so the pass@k objective is NOT installed: the run trains on the "
                "trainer's own advantages, and the guard only watches. What causes this: "
                "multi_objective_aggregation='normalize_then_sum', or a newer TRL."
            )
        return False


def _close(own: Tensor, expected: Tensor) -> Tensor:
    return torch.isclose(own, expected, rtol=1e-3, atol=1e-5)


def _nan_std(rewards: Tensor) -> Tensor:
    """Sample standard deviation of each row over its scorable entries, ``(rows, 1)``."""
    count = (~rewards.isnan()).sum(-1, keepdim=True)
    centred = (rewards - rewards.nanmean(-1, keepdim=True)).nan_to_num(0.0)
    return ((centred**2).sum(-1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
