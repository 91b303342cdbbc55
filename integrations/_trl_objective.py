"""A live pass@k objective inside a TRL trainer: its advantages are replaced, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from passk_guard.errors import reason_of, survived, warn
from passk_guard.integrations._trl_beneath import tapped
from passk_guard.integrations._trl_policy import (
    override_method,
    probing,
    restore_method,
)
from passk_guard.objectives.advantages import leave_one_out_advantages
from passk_guard.objectives.mixes import TrainerMix
from passk_guard.objectives.passk_objective import PassKObjective
from passk_guard.rollouts.verifier import decide_success

# Extra columns of a generation batch. TRL shuffles and splits them like its own, so that λ stays
# live while a batch is used for several optimizer steps.
_PASS1, _PASSK, _REST = "passk_guard_pass1", "passk_guard_passk", "passk_guard_rest"


class TRLObjective:
    """Replaces the advantages of training batches by those of a live objective.

    ``A = A_trainer + (1-λ) s (A_k - A_1)`` with ``A_1`` the centred rewards and ``s`` the trainer's
    reward scale, so that λ = 1 is the trainer untouched and what else it put in, such as RLOO's KL
    penalty, stays. Before the first replacement it checks that ``s A_1`` is what the trainer
    computed; if not (a TRL version or setting that scales in another way), it steps back for good,
    and says so. With
    :class:`~passk_guard.objectives.mixes.TrainerMix` it is ``(1-λ) A_trainer + λ A_1``, A_1 the
    centred success on the trainer's own scale, and nothing is touched while λ = 0.

    All of it is computed from what is gathered from all processes, alike on each. Whatever goes
    wrong here costs the objective, never the run: it goes on with the trainer's own advantages.

    Args:
        trainer: a ``GRPOTrainer`` or ``RLOOTrainer``.
        objective: live; λ may change at any time, k between generation batches.
        verifier: decides "right", for ``TrainerMix``.
        threshold: reward from which a rollout is right.
        strict: raise what goes wrong instead.

    Attributes:
        failed: whether the trainer's own advantages are back for good.
    """

    def __init__(
        self,
        trainer: Any,
        objective: PassKObjective | TrainerMix,
        verifier: Any,
        threshold: float,
        strict: bool = False,
    ) -> None:
        self._trainer = trainer
        self._objective = objective
        self._threshold = threshold
        self._strict = strict
        funcs = trainer.reward_funcs
        self._index = next((i for i, func in enumerate(funcs) if func is verifier), None)
        self._originals: dict[str, Any] = {}
        self._checked = False
        self.failed = False
        self._over = False  # all processes know that one has failed
        if isinstance(objective, TrainerMix) and self._index is None:
            raise ValueError(
                "action='mix' needs to see which training rollouts are right, but the verifier is "
                "none of the trainer's reward_funcs. Add it there (reward_weights may give it 0), "
                "or pass objective='pkpo'."
            )

    def install(self) -> None:
        """Start replacing advantages."""
        if not self._originals and not self.failed:
            for name, ours in (
                ("_generate_and_score_completions", self._generate),
                ("_prepare_inputs", self._prepare),
            ):
                self._originals[name] = override_method(self._trainer, name, ours)

    def remove(self) -> None:
        """Give the trainer its own advantages back."""
        for name, original in self._originals.items():
            restore_method(self._trainer, name, original)
        self._originals = {}

    def _generate(self, inputs: Any) -> Any:
        original = self._originals["_generate_and_score_completions"]
        # In evaluation, and in the guard's own probe, whatever mode that has left behind.
        if not self._trainer.model.training or probing(self._trainer) or self._over:
            return original(inputs)
        with tapped(self._trainer, "_calculate_rewards") as rewards:
            output = original(inputs)
        with survived(self._strict, self._give_up):
            mine = output["advantages"]
            own = self._gathered(mine)
            columns = {} if self.failed else self._parts(rewards, own)
            start = self._trainer.accelerator.process_index * len(mine)
            output = {**output, **{k: v[start : start + len(mine)] for k, v in columns.items()}}
        return output

    def _gathered(self, mine: Tensor) -> Tensor:
        """The advantages of all processes, which learn here if one of them has failed.

        One that failed alone comes here once more, or the others would wait for it.
        """
        accelerator = self._trainer.accelerator
        told = torch.cat([mine, mine.new_tensor([float(self.failed)])])
        rows: Tensor = accelerator.gather(told).view(accelerator.num_processes, -1)
        if bool(rows[:, -1].any()):
            self.failed = self._over = True
        return rows[:, :-1].flatten()

    def _prepare(self, generation_batch: Any) -> Any:
        inputs = self._originals["_prepare_inputs"](generation_batch)
        if not self._trainer.model.training or _PASS1 not in inputs:
            return inputs
        advantages = inputs["advantages"]
        if not self.failed:
            with survived(self._strict, self._give_up):
                advantages = self._mixed(inputs)
        return {**inputs, "advantages": advantages}

    def _mixed(self, columns: Mapping[str, Tensor]) -> Tensor:
        """The advantages at the present λ; where that asks for the trainer's own, just these."""
        weight = self._objective.pass1_weight
        if weight == (0.0 if isinstance(self._objective, TrainerMix) else 1.0):
            own: Tensor = columns["advantages"]
            return own
        return weight * columns[_PASS1] + (1 - weight) * columns[_PASSK] + columns[_REST]

    def _give_up(self, error: Exception) -> None:
        self.failed = True
        if not self._trainer.is_world_process_zero():
            return
        warn(
            "the guard's objective failed, so the run goes on with the trainer's own advantages, "
            f"and the guard only watches. Reason: {reason_of(error)}"
        )

    def _parts(self, gathered: list[Tensor], own: Tensor) -> Mapping[str, Tensor]:
        """What to mix, for all processes; empty where the trainer is not understood.

        Args:
            gathered: the gathered rewards, by reward function.
            own: the trainer's own advantages, of all processes.
        """
        if not gathered or len(gathered[-1]) != len(own):
            seen = f"{len(gathered[-1])} rewards" if gathered else "no rewards"
            raise LookupError(
                f"{type(self._trainer).__name__} computed {seen} for {len(own)} rollouts"
            )
        per_function = gathered[-1].to(own)  # TRL keeps rewards in torch's default dtype
        if isinstance(self._objective, TrainerMix):
            assert self._index is not None
            success = decide_success(per_function[:, self._index].float(), self._threshold)
            centred = leave_one_out_advantages(success.view(-1, self._trainer.num_generations))
            pass1 = _flat(centred, own)
            ratio = float(own.norm()) / max(float(pass1.norm()), 1e-6)
            if bool(pass1.any()) and bool(own.any()):
                self._objective.scale += 0.1 * (ratio - self._objective.scale)
            return {
                _PASS1: self._objective.scale * pass1,
                _PASSK: own,
                _REST: torch.zeros_like(own),
            }
        rewards = self._group_rewards(per_function)
        scale, leave_one_out = self._reward_scale(rewards)
        if not leave_one_out:  # GRPO's r - r̄ is (n-1)/n of the leave-one-out form
            n = (~rewards.isnan()).sum(-1, keepdim=True)
            scale = scale * (n - 1) / n.clamp(min=1)
        pass1 = scale * leave_one_out_advantages(rewards)
        expected = _flat(pass1, own)
        if not self._checked and not self._same(expected, own):
            return {}
        passk = scale * self._objective.passk(rewards)
        rest = own - expected  # what the trainer put in beside the rewards, such as a KL penalty
        if not self._penalised:  # free of rounding, so that no advantage stays exactly none
            rest = torch.where(_close(own, expected), 0.0, rest)
        return {_PASS1: expected, _PASSK: _flat(passk, own), _REST: rest}

    def _group_rewards(self, per_function: Tensor) -> Tensor:
        trainer = self._trainer
        rewards: Tensor = (per_function * trainer.reward_weights.to(per_function)).nansum(-1)
        rewards[per_function.isnan().all(-1)] = torch.nan
        if clip := getattr(trainer, "reward_clip_range", None):
            rewards = rewards.clamp(*clip)
        return rewards.view(-1, trainer.num_generations)

    def _reward_scale(self, rewards: Tensor) -> tuple[Tensor, bool]:
        """``(groups, 1)`` what centred rewards are multiplied by; whether by leave-one-out."""
        ones = torch.ones_like(rewards[:, :1])
        if not hasattr(self._trainer, "scale_rewards"):  # RLOO
            if not self._trainer.normalize_advantages:
                return ones, True
            advantages = leave_one_out_advantages(rewards).flatten()
            advantages[rewards.flatten().isnan()] = torch.nan
            return ones / (_nan_std(advantages[None]) + 1e-4), True
        how = self._trainer.scale_rewards
        if how in ("none", False):
            return ones, False
        if how == "batch":
            return ones / (_nan_std(rewards.reshape(1, -1)) + 1e-4), False
        return 1 / (_nan_std(rewards) + 1e-4), False

    def _same(self, expected: Tensor, own: Tensor) -> bool:
        self._checked = bool(expected.any())  # an all-zero batch proves nothing
        if self._understood(expected, own):
            return True
        self.failed = True
        if self._trainer.is_world_process_zero():
            warn(
                "this trainer's advantages are not the (scaled) centred rewards that were "
                "expected, so the pass@k objective is NOT installed: the run trains on the "
                "trainer's own advantages, and the guard only watches. What causes this: "
                "multi_objective_aggregation='normalize_then_sum', normalize_advantages with a KL "
                "penalty, or a newer TRL."
            )
        return False

    @property
    def _penalised(self) -> bool:
        """RLOO with a KL penalty inside its rewards."""
        return not hasattr(self._trainer, "scale_rewards") and self._trainer.beta != 0.0

    def _understood(self, expected: Tensor, own: Tensor) -> bool:
        if bool(_close(own, expected).all()):
            return True
        if not self._penalised or self._trainer.normalize_advantages:
            return False
        # The KL penalty inside the rewards is not seen here; what is known is that it is centred.
        rest = (own - expected).view(-1, self._trainer.num_generations)
        return bool((rest.sum(1).abs() < 1e-3).all())


def _flat(advantages: Tensor, own: Tensor) -> Tensor:
    """As the trainer has them; unscorable rollouts get 0, as TRL gives them."""
    return advantages.flatten().nan_to_num(nan=0.0).to(own)


def _close(own: Tensor, expected: Tensor) -> Tensor:
    return torch.isclose(own, expected, rtol=1e-3, atol=1e-5)


def _nan_std(rewards: Tensor) -> Tensor:
    """Sample standard deviation of each row over its scorable entries, ``(rows, 1)``."""
    count = (~rewards.isnan()).sum(-1, keepdim=True)
    centred = (rewards - rewards.nanmean(-1, keepdim=True)).nan_to_num(0.0)
    return ((centred**2).sum(-1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
