"""passk-guard for TRL: one callback line guards a GRPO or RLOO run, and watches others."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Unpack

import trl  # noqa: F401  # if it is missing, that is said at once
from transformers import Trainer

from passk_guard.config import PassKGuardConfig, Settings, check_keywords
from passk_guard.integrations._trainer_adapter import TransformersAdapter
from passk_guard.integrations._trainer_callback import GuardCallback
from passk_guard.integrations._trl_adapter import AdvantagesAdapter, MonitoringAdapter
from passk_guard.session.trainer_adapter import Arguments

__all__ = ["PassKGuardCallback"]


class PassKGuardCallback(GuardCallback):
    """Guards pass@1 in a ``trl.GRPOTrainer`` or ``RLOOTrainer``, watches other TRL trainers::

        from passk_guard.integrations.trl import PassKGuardCallback

        callback = PassKGuardCallback(
            trainer, prompts=held_out, k=4, objective="pkpo", action=["warn", "mix"]
        )
        trainer.add_callback(callback)
        trainer.train()
        print(callback.guard.history[-1].track)

    ``GRPOTrainer(..., callbacks=[PassKGuardCallback(prompts=held_out)])`` works, too. What it logs:
    see :mod:`passk_guard.reporting.scalars`. All other keywords are those of
    :class:`~passk_guard.config.PassKGuardConfig`.

    Args:
        trainer: the trainer to guard; may be left out in the second form.
        prompts: held-out pool: strings, chat messages, dict rows, a ``datasets.Dataset``, a
            DataFrame or the path of a ``.jsonl`` file; by default the trainer's eval dataset.
            Columns beside ``prompt`` reach the verifier.
        reward_funcs: verifier; by default the trainer's own reward functions.
        success: name of the reward, or a verifier of its own, that decides "right"; needed where
            there are several rewards.
        success_threshold: reward from which a rollout counts as right.
        objective: ``"pkpo"`` or another also installs that pass@k objective; ``None`` leaves the
            trainer's.
        temperature: sampling temperature of probes; by default the trainer's.

    Attributes:
        guard: the :class:`~passk_guard.guard.PassKGuard`; its ``history`` holds the probes.

    Raises:
        ValueError, TypeError: at once where the trainer is given, else as training starts.
    """

    def __init__(
        self,
        trainer: Trainer | None = None,
        *,
        prompts: Any = None,
        reward_funcs: Any = None,
        success: str | Callable[..., Any] | None = None,
        success_threshold: float = 0.5,
        temperature: float | None = None,
        objective: str | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        check_keywords(PassKGuardCallback, settings)
        arguments = Arguments(
            prompts=prompts,
            reward_funcs=reward_funcs,
            success=success,
            success_threshold=success_threshold,
            temperature=temperature,
        )
        super().__init__(PassKGuardConfig(objective=objective, **settings), arguments, trainer)

    def _adapter_class(self, trainer: Any) -> type[TransformersAdapter]:
        if _shows_advantages(trainer):
            return AdvantagesAdapter
        use = "passk_guard.integrations.transformers"
        if not isinstance(trainer, Trainer):
            use = "passk_guard.integrations.lightning for Lightning"
        elif any(cls.__module__.startswith("trl.") for cls in type(trainer).__mro__):
            return MonitoringAdapter
        raise TypeError(
            "passk_guard.integrations.trl.PassKGuardCallback guards trainers of TRL, got "
            f"{type(trainer).__name__}. Use {use}."
        )


def _shows_advantages(trainer: Any) -> bool:
    """Whether it is a ``GRPOTrainer`` or ``RLOOTrainer``.

    Users of other trainers have not imported these, which import trackers and vLLM.
    """
    names = {"trl.trainer.grpo_trainer": "GRPOTrainer", "trl.trainer.rloo_trainer": "RLOOTrainer"}
    kinds = [getattr(sys.modules[m], name) for m, name in names.items() if m in sys.modules]
    return isinstance(trainer, tuple(kinds))
