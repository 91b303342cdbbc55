"""passk-guard for TRL: one callback line guards a GRPO or RLOO run, and watches others."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import trl  # noqa: F401  # if it is missing, that is said at once
from transformers import Trainer

from passk_guard.config import Actions, Names, PassKGuardConfig
from passk_guard.gradients.accumulators import DEFAULT_MEMORY_LIMIT
from passk_guard.gradients.parameters import ParameterFilter
from passk_guard.integrations._trainer_callback import GuardCallback
from passk_guard.integrations._trl_guard import advantages_guard, monitoring_guard
from passk_guard.session.arguments import Arguments

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
        temperature: of the probe's sampling; by default the trainer's.

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
        # Settings.
        k: int = 8,
        objective: str | None = None,
        reference_prompts: int = 512,
        num_generations: int | None = None,
        rollouts_per_look: int = 1024,
        every: int | None = None,
        max_overhead: float | None = None,
        action: Actions = "warn",
        pass1_tolerance: float = 0.01,
        floor: str | float = "start",
        false_alarms: float = 0.001,
        watch: str = "update",
        metric: str = "euclidean",
        engine: str = "auto",
        detectors: Names = "alignment,level",
        controller: str = "mpc",
        report_temperature: float | None = None,
        group_by: str | None = None,
        weight_by: str | None = None,
        parameters: ParameterFilter = None,
        memory_limit: int = DEFAULT_MEMORY_LIMIT,
        verifier_timeout: float = 300.0,
        log_prompts: bool = False,
        journal: bool | None = None,
        on_error: str | None = None,
        seed: int = 0,
        # End of settings.
    ) -> None:
        self._arguments = Arguments(
            prompts=prompts,
            reward_funcs=reward_funcs,
            success=success,
            success_threshold=success_threshold,
            temperature=temperature,
        )
        config = PassKGuardConfig(
            # Settings.
            k=k,
            objective=objective,
            reference_prompts=reference_prompts,
            num_generations=num_generations,
            rollouts_per_look=rollouts_per_look,
            every=every,
            max_overhead=max_overhead,
            action=action,
            pass1_tolerance=pass1_tolerance,
            floor=floor,
            false_alarms=false_alarms,
            watch=watch,
            metric=metric,
            engine=engine,
            detectors=detectors,
            controller=controller,
            report_temperature=report_temperature,
            group_by=group_by,
            weight_by=weight_by,
            parameters=parameters,
            memory_limit=memory_limit,
            verifier_timeout=verifier_timeout,
            log_prompts=log_prompts,
            journal=journal,
            on_error=on_error,
            seed=seed,
            # End of settings.
        )
        super().__init__(config, trainer)

    def _check(self, trainer: Any) -> None:
        if _shows_advantages(trainer):
            return
        if not isinstance(trainer, Trainer):
            raise TypeError(
                "passk_guard.integrations.trl.PassKGuardCallback guards trainers of TRL, got "
                f"{type(trainer).__name__}. For Lightning use passk_guard.integrations.lightning."
            )
        if not any(cls.__module__.startswith("trl.") for cls in type(trainer).__mro__):
            raise TypeError(
                "passk_guard.integrations.trl.PassKGuardCallback guards trainers of TRL, got "
                f"{type(trainer).__name__}. Use passk_guard.integrations.transformers."
            )

    def _build(self) -> None:
        if _shows_advantages(self._trainer):
            self._session.attach(**advantages_guard(self._trainer, self._arguments, self._session))
        else:
            self._session.attach(monitoring_guard(self._trainer, self._arguments, self._session))


def _shows_advantages(trainer: Any) -> bool:
    """Whether it is a ``GRPOTrainer`` or ``RLOOTrainer``.

    Users of other trainers have not imported these, which import trackers and vLLM.
    """
    names = {"trl.trainer.grpo_trainer": "GRPOTrainer", "trl.trainer.rloo_trainer": "RLOOTrainer"}
    kinds = [getattr(sys.modules[m], name) for m, name in names.items() if m in sys.modules]
    return isinstance(trainer, tuple(kinds))
