"""passk-guard for TRL: one callback line guards a GRPO or RLOO run, and watches others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from transformers import Trainer
from trl import GRPOTrainer, RLOOTrainer

from passk_guard.checks import check_sampling, check_threshold
from passk_guard.config import Actions, PassKGuardConfig
from passk_guard.gradients.accumulators import DEFAULT_MEMORY_LIMIT
from passk_guard.gradients.parameters import ParameterFilter
from passk_guard.guard import PassKGuard
from passk_guard.integrations._hosts import samples_per_step, trainer_host
from passk_guard.integrations._trainer_events import GuardCallback
from passk_guard.integrations._trl_objective import TRLObjective
from passk_guard.integrations._trl_policy import TRLPolicy
from passk_guard.integrations._trl_sampling import training_filters
from passk_guard.integrations._trl_sensor import TrainingRewards
from passk_guard.integrations._trl_setup import check_trainer, pick_verifier, training_groups
from passk_guard.objectives.mixes import TrainerMix
from passk_guard.objectives.passk_objective import PassKObjective
from passk_guard.prompts.pool import HeldOutPool
from passk_guard.prompts.rows import check_texts
from passk_guard.rollouts.verifier import verifier_name
from passk_guard.session.held_out import held_out_rows
from passk_guard.session.hosted_guard import Given, hosted_guard

__all__ = ["PassKGuardCallback"]

logger = logging.getLogger("passk_guard")


class PassKGuardCallback(GuardCallback):
    """Guards pass@1 in a ``trl.GRPOTrainer`` or ``RLOOTrainer``, watches other TRL trainers::

        trainer.add_callback(PassKGuardCallback(trainer, prompts=held_out, k=8))
        trainer = GRPOTrainer(..., callbacks=[PassKGuardCallback(prompts=held_out, k=8)])

    What it logs: see :mod:`passk_guard.reporting.scalars`. All other keywords are those of
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
        k: the k that the run optimises.
        objective: ``"pkpo"`` or another also installs that pass@k objective; ``None`` leaves the
            trainer's.
        num_generations: rollouts per held-out prompt.
        prompts_per_probe: fresh prompts per probe.
        every: optimizer steps between probes.
        max_overhead: share of wall time for probes.
        action: what to do at an alarm.
        pass1_tolerance: how far pass@1 may fall below its floor.
        floor: ``"start"``, ``"best"`` so far, or a number.
        false_alarms: chance of a false alarm per probe.
        watch: ``"update"`` or ``"target_k"``.
        metric: ``"euclidean"`` or ``"adam"``.
        temperature: of the probe's sampling; by default the trainer's.
        report_temperature: also measure pass@1 at this one; 0 is greedy.
        group_by: column; a floor and a verdict for each of its values.
        weight_by: column with each prompt's weight.
        reference_batches: batches behind the reference level.
        parameters: which parameters to differentiate by.
        memory_limit: bytes that a probe's gradients may take; above it they are sketched.
        verifier_timeout: seconds after which a hanging verifier is reported; an async one is
            interrupted.
        log_prompts: let prompt text, not only row ids, into alarms, tables and the JSONL.
        on_error: ``"continue"``, or ``"raise"`` for development.
        seed: of the guard's own draws.

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
        k: int = 8,
        objective: str | None = None,
        num_generations: int | None = None,
        prompts_per_probe: int = 64,
        every: int | None = None,
        max_overhead: float | None = None,
        action: Actions = "warn",
        pass1_tolerance: float = 0.01,
        floor: str | float = "start",
        false_alarms: float = 1e-3,
        watch: str = "update",
        metric: str = "euclidean",
        temperature: float | None = None,
        report_temperature: float | None = None,
        group_by: str | None = None,
        weight_by: str | None = None,
        reference_batches: int | None = None,
        parameters: ParameterFilter = None,
        memory_limit: int = DEFAULT_MEMORY_LIMIT,
        verifier_timeout: float = 300.0,
        log_prompts: bool = False,
        on_error: str | None = None,
        seed: int = 0,
    ) -> None:
        self.config = PassKGuardConfig.from_keywords(locals())
        self._prompts, self._temperature = prompts, check_sampling(temperature)
        self._reward_funcs, self._success = reward_funcs, success
        self._threshold = check_threshold(success_threshold)
        super().__init__(trainer)

    def _check(self, trainer: Any) -> None:
        if isinstance(trainer, (GRPOTrainer, RLOOTrainer)):
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
        trainer, config = self._trainer, self.config
        if not isinstance(trainer, (GRPOTrainer, RLOOTrainer)):
            self._build_monitor()
            return
        check_trainer(trainer, config, self._temperature)
        rows = held_out_rows(
            self._prompts,
            config,
            instead=trainer.eval_dataset,
            training=trainer.train_dataset,
            is_main=trainer.is_world_process_zero(),
        )
        check_texts(
            rows,
            trainer.processing_class,
            chat_template=getattr(trainer, "chat_template", None),
            tools=True,
        )
        verifier = pick_verifier(trainer, self._reward_funcs, self._success, rows)
        temperature = trainer.temperature if self._temperature is None else self._temperature
        policy = TRLPolicy(trainer, verifier, self._threshold, temperature, config.verifier_timeout)
        if told := training_filters(trainer):
            self._say(
                "passk-guard: training samples with "
                f"{', '.join(f'{name}={value!r}' for name, value in told.items())}; probes sample "
                "without, from the policy's own distribution, which the scores belong to. Their "
                "pass@1 is not that of the training rollouts."
            )
        self._sensor = TrainingRewards(trainer, verifier, self._threshold)
        live: PassKObjective | TrainerMix | None = None
        if config.objective is not None:
            live = PassKObjective(config.k, estimator=config.objective)
        elif "mix" in config.actions:
            live = TrainerMix(config.k)
        if live is not None:
            self._objective = TRLObjective(trainer, live, verifier, self._threshold, config.strict)
        self._guard = PassKGuard(
            policy,
            HeldOutPool(
                rows,
                config.seed,
                weight_by=config.weight_by,
                batch=min(config.prompts_per_probe, len(rows)),
            ),
            config,
            isolation=policy.isolated,
            objective=live,
            micro_batch=trainer.args.per_device_train_batch_size,
            optimizer=lambda: trainer.optimizer,
            training_pass_at_1=self._sensor.pass_at_1,
            say=self._say,
            progress=self._terminal.progress,
            is_main=trainer.is_world_process_zero(),
            sampling={
                "verifier": verifier_name(verifier),
                "success_threshold": self._threshold,
                "temperature": temperature,
                "max_completion_length": trainer.max_completion_length,
            },
            training=training_groups(trainer),
            rollouts_per_step=lambda: samples_per_step(trainer),
        )

    def _build_monitor(self) -> None:
        """Watch any other trainer of TRL: its advantages, if it has any, cannot be reached."""
        trainer, name = self._trainer, type(self._trainer).__name__
        why = (
            f"{name} has no advantages that the guard can reach, so it only watches. Use "
            "action='warn', 'checkpoint' or 'stop'; passk_guard.integrations.transformers adds a "
            "pass@1 loss on anchor_prompts to any trainer with a loss."
        )
        if self.config.objective is not None:
            raise ValueError(f"objective={self.config.objective!r} is not possible here: {why}")
        given = Given(
            prompts=self._prompts,
            reward_funcs=self._reward_funcs,
            success=self._success,
            success_threshold=self._threshold,
            temperature=self._temperature or getattr(trainer.args, "temperature", None),
            max_completion_length=getattr(trainer.args, "max_completion_length", None)
            or getattr(trainer.args, "max_new_tokens", None),
        )
        host = trainer_host(trainer, self._terminal, why_no_mix=why)
        self._guard, _ = hosted_guard(host, given, self.config)
        self._say(
            f"passk-guard: {name} shows no advantages, so the guard only watches, and tests the "
            "pass@k gradient."
        )
