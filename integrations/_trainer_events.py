"""What every ``transformers.Trainer`` and the guard say to each other, event by event."""

from __future__ import annotations

import io
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from passk_guard.config import PassKGuardConfig
from passk_guard.errors import survived, warn
from passk_guard.gradients.adam_metric import check_adam
from passk_guard.guard import PassKGuard
from passk_guard.integrations._needs import Need, check_needs
from passk_guard.integrations._parallel import refuse_unsupported
from passk_guard.integrations._trainer_loggers import Reporters
from passk_guard.look import Probe, Rescore
from passk_guard.remedies.anchors import AnchorTerm, norm
from passk_guard.remedies.gradient_term import HostNorm, add_to_gradients
from passk_guard.reporting.journal import Journal
from passk_guard.reporting.report import begin_run, end_run, publish
from passk_guard.reporting.sentences import start_message, where_message
from passk_guard.reporting.terminal import Terminal
from passk_guard.runtime.processes import decided_by_first, everywhere
from passk_guard.runtime.schedule import Task
from passk_guard.session.harmless import Harmless, harmless
from passk_guard.session.state_file import FILE_NAME, resumed_folder, take_up, whole_state

__all__ = ["GuardCallback"]

NEEDS = (
    Need("callback_handler.callbacks", None, "find reporters and other guards"),
    Need("is_world_process_zero", 0, "warn and write on one process only"),
    Need("accelerator.autocast", 0, "compute in the run's precision"),
    Need("accelerator.state", None, "see how the model is shared out"),
    Need("is_deepspeed_enabled", None, "see how the model is shared out"),
)


class GuardCallback(TrainerCallback, Harmless, ABC):
    """The events; an adapter says how it attaches to a trainer and builds its guard.

    Attributes:
        config: the settings.
    """

    config: PassKGuardConfig
    _anchors: AnchorTerm | None = None  # the pass@1 term where the trainer has no advantages

    def __init__(self, trainer: Any) -> None:
        self._trainer: Any = None
        self._guard: PassKGuard | None = None
        self._objective: Any = None  # puts a live objective into the trainer: install, remove
        self._sensor: Any = None  # reads the training rewards
        self._host_norm = HostNorm()
        self._terminal = Terminal(self._shows_progress)
        self._say = self._terminal.say
        self._clock = self._anchor_seconds = 0.0
        if trainer is not None:
            self._meet(trainer)
            self._build()

    @abstractmethod
    def _check(self, trainer: Any) -> None:
        """Refuse a trainer of the wrong class."""

    @abstractmethod
    def _build(self) -> None:
        """Make the guard, once the trainer is known."""

    def _meet(self, trainer: Any) -> None:
        self._check(trainer)
        check_needs(trainer, NEEDS, "transformers", ">=4.56.2,<6")
        refuse_unsupported(trainer)
        self._trainer = trainer
        self._reporters = Reporters(trainer, self.config.strict)
        self._refuse_second_guard()

    @property
    def state_key(self) -> str:
        """What Lightning asks a callback of its own for: this is none."""
        raise TypeError(
            "This PassKGuardCallback is for transformers.Trainer and TRL. In a Lightning Trainer "
            "use passk_guard.integrations.lightning.PassKGuardCallback."
        )

    def on_exception(self, *args: Any) -> None:
        """Lightning passes the error above on to all callbacks; there is nothing to add."""

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
            self._meet(_calling_trainer())

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
        self._journal = Journal(args.output_dir)
        hint = "" if self._reporters.any else "No reporter: try report_to='tensorboard'."
        self._say(where_message(self._journal.path, hint))
        if state.is_world_process_zero:
            name = type(self._trainer).__name__
            begin_run(self.guard, self._journal, state.global_step, name)
        if self._objective is not None:
            self._objective.install()
        if state.global_step > 0:
            folder = resumed_folder(self._trainer) or _checkpoint(args, state)
            take_up(lambda: _loaded(folder / FILE_NAME), self.guard, self._anchors)
        self._maybe_probe(state.global_step)
        self._clock = time.perf_counter()

    @harmless
    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the pass@1 term before the trainer's own backward: clipping and averaging see it."""
        if self._anchors is None or not self._anchors.due():
            return
        began = time.perf_counter()
        gradient = self._anchors.gradient(state.global_step)
        if gradient is not None and not self._anchors.matched:
            # One step without the term tells the size of the trainer's own gradient.
            self._host_norm.watch(self._anchors.parameters(), norm(gradient.values()))
        elif gradient is not None:
            factor = self._anchors.objective.factor * self._loss_scale()
            add_to_gradients(self._anchors.parameters(), gradient, factor)
        self._anchor_seconds += time.perf_counter() - began

    @harmless
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Probe when one is due. ``control`` is touched only by ``"checkpoint"`` and ``"stop"``."""
        schedule, now = self.guard.schedule, time.perf_counter()
        schedule.trained(now - self._clock - self._anchor_seconds)
        schedule.also(self._anchor_seconds, remedy=True)
        self._anchor_seconds = 0.0
        before = schedule.spent
        if self._sensor is not None:
            with survived(self.config.strict, self._blind_to_training):
                self._sensor.observe()
        if self._anchors is not None and self._host_norm.watching:
            host, own = self._host_norm.read()
            self._anchors.match(host / self._loss_scale(), own)
        self._maybe_probe(state.global_step)
        self._clock = time.perf_counter()
        schedule.also(self._clock - now - (schedule.spent - before))
        self._grant_requests(control, state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the guard's state into the checkpoint."""
        if not self._trainer.is_world_process_zero():
            return
        path = _checkpoint(args, state) / FILE_NAME
        with survived(self.config.strict, _not_saved):
            state_file = io.BytesIO()  # torch's own writer hides what went wrong with the disk
            torch.save(whole_state(self.guard, self._anchors), state_file)
            # A run that is killed meanwhile leaves no half-written file behind.
            path.with_suffix(".tmp").write_bytes(state_file.getvalue())
            path.with_suffix(".tmp").replace(path)

    @harmless
    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Give the trainer its own advantages back, and sum the run up."""
        if self._objective is not None:
            self._objective.remove()
        self.guard.end()
        if state.is_world_process_zero:
            end_run(self.guard, self._journal, state.global_step)
        self._terminal.conclude(self.guard, self._journal)

    # Parts ----------------------------------------------------------------------------------

    def _maybe_probe(self, step: int) -> None:
        task = self._agreed(self.guard.due(step))
        if task is None:
            return
        if self._objective is not None and any(everywhere(lambda: self._objective.failed)):
            self._objective.failed = True
            self.guard.objective = None  # the trainer's own advantages are in force
        self._report(self.guard.run(task, step))

    def _grant_requests(self, control: Any, step: int) -> None:
        requests, self.guard.requests = self.guard.requests, set()
        if requests:
            control.should_save = True
        if "stop" in requests:
            control.should_training_stop = True
            self._say(
                f"passk-guard: step {step}: training stops here, because action='stop' was asked "
                "for and an alarm was raised. A checkpoint is saved."
            )

    def _blind_to_training(self, error: Exception) -> None:
        """Pass@1 on the training batches is only logged."""
        self._sensor = None
        self._say(
            "passk-guard: pass@1 on the training batches can no longer be read "
            f"({type(error).__name__}: {error}). No alarm rests on it."
        )

    def _loss_scale(self) -> float:
        """What float16 training multiplies its loss with."""
        scaler = getattr(self._trainer.accelerator, "scaler", None)
        return float(scaler.get_scale()) if scaler else 1.0

    def _agreed(self, task: Task | None) -> Task | None:
        """Process 0's clock decides for all."""
        return decided_by_first(task) if self.guard.schedule.timed else task

    def _report(self, found: Probe | Rescore | None) -> None:
        if self._trainer.is_world_process_zero():
            publish(found, self.guard, self._journal, self._reporters.send)

    def _shows_progress(self) -> bool:
        return bool(self._trainer.is_world_process_zero() and not self._trainer.args.disable_tqdm)

    def _refuse_second_guard(self) -> None:
        callbacks = self._trainer.callback_handler.callbacks
        guards = [c for c in callbacks if isinstance(c, GuardCallback)]
        if len(guards) > 1 or (guards and guards[0] is not self):
            raise ValueError(
                "This trainer already has a PassKGuardCallback. One guard per trainer: remove one "
                "with trainer.remove_callback."
            )


def _calling_trainer() -> Any:
    """The ``Trainer`` whose ``__init__`` is being run, found on the stack.

    Raises:
        RuntimeError: there is none.
    """
    from transformers import Trainer

    frame = sys._getframe(1)
    while frame is not None:
        candidate = frame.f_locals.get("self")
        if isinstance(candidate, Trainer):
            return candidate
        frame = frame.f_back  # type: ignore[assignment]
    raise RuntimeError(
        "PassKGuardCallback could not find its trainer. Write "
        "trainer.add_callback(PassKGuardCallback(trainer, ...))."
    )


def _checkpoint(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def _loaded(path: Path) -> Mapping[str, Any] | None:
    if not path.exists():
        return None
    state: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _not_saved(error: Exception) -> None:
    warn(
        f"the guard's state was not saved ({type(error).__name__}: {error}). Training goes on; a "
        "run resumed from this checkpoint starts its guard afresh."
    )
