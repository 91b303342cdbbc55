"""passk-guard for TRL: one callback line guards a GRPO run."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from trl import GRPOTrainer

from passk_guard.actions import warn
from passk_guard.config import Action, PassKGuardConfig
from passk_guard.gradients import DEFAULT_MEMORY_LIMIT, ParameterFilter
from passk_guard.guard import PassKGuard
from passk_guard.integrations._reporters import Reporters
from passk_guard.integrations._trl_objective import TRLObjective
from passk_guard.integrations._trl_policy import TRLPolicy
from passk_guard.integrations._trl_sensor import TrainingRewards
from passk_guard.integrations._trl_setup import (
    calling_trainer,
    check_trainer,
    held_out_rows,
    pick_verifier,
)
from passk_guard.objectives import PassKObjective
from passk_guard.pool import HeldOutPool
from passk_guard.preconditioner import check_adam
from passk_guard.probe import Probe, Rescore
from passk_guard.reporting.message import start_message
from passk_guard.reporting.scalars import scalars
from passk_guard.schedule import Task

__all__ = ["PassKGuardCallback"]

logger = logging.getLogger("passk_guard")


class PassKGuardCallback(TrainerCallback):
    """Guards pass@1 in a ``trl.GRPOTrainer``; either form works::

        trainer.add_callback(PassKGuardCallback(trainer, prompts=held_out, k=8))
        trainer = GRPOTrainer(..., callbacks=[PassKGuardCallback(prompts=held_out, k=8)])

    What it logs: see :mod:`passk_guard.reporting.scalars`. All other keywords are those of
    :class:`~passk_guard.config.PassKGuardConfig`.

    Args:
        trainer: the trainer to guard; may be left out in the second form.
        prompts: held-out pool: strings, chat messages, dict rows or a ``datasets.Dataset``; by
            default the trainer's eval dataset. Columns beside ``prompt`` reach the verifier.
        reward_funcs: verifier; by default the trainer's own reward functions.
        success: name of the reward, or a verifier of its own, that decides "right"; needed where
            there are several rewards.
        success_threshold: reward from which a rollout counts as right.
        k: the k that the run optimises.
        objective: ``"pkpo"`` also installs that pass@k objective; ``None`` leaves the trainer's.
        num_generations: rollouts per held-out prompt.
        prompts_per_probe: fresh prompts per probe.
        every: optimizer steps between probes.
        max_overhead: share of wall time for probes.
        action: what to do at an alarm.
        pass1_tolerance: how far pass@1 may fall.
        false_alarms: chance of a false alarm per probe.
        watch: ``"update"`` or ``"target_k"``.
        metric: ``"euclidean"`` or ``"adam"``.
        temperature: of the probe's sampling; by default the trainer's.
        report_temperature: also measure pass@1 at this one; 0 is greedy.
        group_by: column; a floor and a verdict for each of its values.
        weight_by: column with each prompt's weight.
        reference_batches: batches behind the reference level.
        parameters: which parameters to differentiate by.
        memory_limit: bytes that the exact Gramian may take.
        log_prompts: let prompt text, not only row ids, into the alarm's message.
        seed: of the guard's own draws.

    Attributes:
        guard: the :class:`~passk_guard.guard.PassKGuard`; its ``history`` holds the probes.

    Raises:
        ValueError, TypeError: at once where the trainer is given, else as training starts.
    """

    def __init__(
        self,
        trainer: GRPOTrainer | None = None,
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
        action: Action | list[Action] = "warn",
        pass1_tolerance: float = 0.01,
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
        log_prompts: bool = False,
        seed: int = 0,
    ) -> None:
        self.config = PassKGuardConfig(
            k=k,
            objective=objective,
            num_generations=num_generations,
            prompts_per_probe=prompts_per_probe,
            every=every,
            max_overhead=max_overhead,
            action=action,
            pass1_tolerance=pass1_tolerance,
            false_alarms=false_alarms,
            watch=watch,
            metric=metric,
            report_temperature=report_temperature,
            group_by=group_by,
            weight_by=weight_by,
            reference_batches=reference_batches,
            parameters=parameters,
            memory_limit=memory_limit,
            log_prompts=log_prompts,
            seed=seed,
        )
        self._prompts, self._temperature = prompts, temperature
        self._reward_funcs, self._success = reward_funcs, success
        self._threshold = success_threshold
        self._trainer: Any = None
        self._guard: PassKGuard | None = None
        self._objective: TRLObjective | None = None
        self._clock = 0.0
        if trainer is not None:
            self._attach(trainer)
            self._build()

    @property
    def guard(self) -> PassKGuard:
        """The guard, once the callback has met its trainer and training has begun."""
        if self._guard is None:
            raise RuntimeError(
                "PassKGuardCallback has no trainer yet. Pass it as the first argument, or read "
                ".guard after training has started."
            )
        return self._guard

    # Trainer events -------------------------------------------------------------------------

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Find the trainer in the ``callbacks=[...]`` form: no event receives it."""
        if self._trainer is None:
            self._attach(calling_trainer())

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check, install the objective, probe the untouched policy."""
        if self._trainer is None:
            raise RuntimeError(
                "PassKGuardCallback does not know its trainer. Write "
                "trainer.add_callback(PassKGuardCallback(trainer, ...))."
            )
        self._refuse_second_guard()
        if self._guard is None:
            self._build()
        if self.config.metric == "adam":
            check_adam(self._trainer.optimizer)
        total = state.max_steps if state.max_steps > 0 else None
        self.guard.total_steps = total
        self._say(start_message(self.config, len(self.guard.pool), total))
        if not self._reporters.any:
            self._say(
                "passk-guard: report_to names no reporter, so nothing is written; results are in "
                "callback.guard.history. Try report_to='tensorboard'."
            )
        if self._objective is not None:
            self._objective.install()
        if state.global_step > 0:
            self._resume(_checkpoint(args, state))
        self._maybe_probe(state.global_step)
        self._clock = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Probe when one is due. ``control`` is left as it is."""
        self.guard.schedule.trained(time.perf_counter() - self._clock)
        self._sensor.observe()
        self._maybe_probe(state.global_step)
        self._clock = time.perf_counter()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the guard's state into the checkpoint."""
        if not self._trainer.is_world_process_zero():
            return
        try:
            torch.save(self.guard.state_dict(), _checkpoint(args, state))
        except Exception as error:
            warn(f"the guard's state was not saved: {type(error).__name__}: {error}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Give the trainer its own advantages back, and say what the guard cost."""
        self._say(f"passk-guard: took {100 * self.guard.overhead:.1f} % of the run's time.")
        if self._objective is not None:
            self._objective.remove()

    # Parts ----------------------------------------------------------------------------------

    def _maybe_probe(self, step: int) -> None:
        if self._objective is not None and self._objective.failed:
            self.guard.objective = None  # the trainer's own advantages are in force
        task = self._agreed(self.guard.due(step))
        if task is None:
            return
        found = self.guard.run(task, step)
        if found is not None:
            self._report(found)

    def _resume(self, path: Path) -> None:
        try:
            self.guard.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:
            warn(
                f"no guard state in this checkpoint ({type(error).__name__}: {path}). The guard "
                "starts afresh: losses before this step are not seen."
            )

    def _agreed(self, task: Task | None) -> Task | None:
        """Process 0's clock decides for all."""
        if self._trainer.accelerator.num_processes == 1 or not self.guard.schedule.timed:
            return task
        from accelerate.utils import broadcast_object_list

        agreed: list[Task | None] = broadcast_object_list([task])
        return agreed[0]

    def _report(self, found: Probe | Rescore) -> None:
        if not self._trainer.is_world_process_zero():
            return
        self._reporters.scalars({**scalars(found), "passk_guard/overhead": self.guard.overhead})
        if isinstance(found, Probe) and found.curve:
            self._reporters.figure("passk_guard/alignment_curve", lambda: _curve(found))

    def _say(self, text: str) -> None:
        if self._trainer.is_world_process_zero() and not self._trainer.args.disable_tqdm:
            from tqdm.auto import tqdm

            tqdm.write(text, file=sys.stderr)
        else:
            logger.info(text)

    def _attach(self, trainer: Any) -> None:
        if not isinstance(trainer, GRPOTrainer):
            raise TypeError(
                f"passk_guard.integrations.trl.PassKGuardCallback guards trl.GRPOTrainer, got "
                f"{type(trainer).__name__}. Other trainers are not supported yet."
            )
        self._trainer = trainer
        self._reporters = Reporters(trainer)
        self._refuse_second_guard()

    def _refuse_second_guard(self) -> None:
        callbacks = self._trainer.callback_handler.callbacks
        guards = [c for c in callbacks if isinstance(c, PassKGuardCallback)]
        if len(guards) > 1 or (guards and guards[0] is not self):
            raise ValueError(
                "This trainer already has a PassKGuardCallback. One guard per trainer: remove one "
                "with trainer.remove_callback."
            )

    def _build(self) -> None:
        trainer, config = self._trainer, self.config
        check_trainer(trainer, config, self._temperature)
        rows = held_out_rows(trainer, self._prompts, config)
        verifier = pick_verifier(trainer, self._reward_funcs, self._success, rows)
        temperature = trainer.temperature if self._temperature is None else self._temperature
        policy = TRLPolicy(trainer, verifier, self._threshold, temperature)
        self._sensor = TrainingRewards(trainer, verifier, self._threshold)
        live = None
        if config.objective is not None:
            live = PassKObjective(config.k, estimator=config.objective)
            self._objective = TRLObjective(trainer, live)
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
            is_main=trainer.is_world_process_zero(),
        )


def _curve(probe: Probe) -> Any:
    from passk_guard.reporting.figures import alignment_curve_figure  # matplotlib is an extra

    return alignment_curve_figure(probe)


def _checkpoint(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}" / "passk_guard.pt"
