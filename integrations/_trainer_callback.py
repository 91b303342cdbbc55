"""Every ``transformers.Trainer``: which of its events the guard's session hears, and when."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import Trainer, TrainerCallback

from passk_guard.config import PassKGuardConfig
from passk_guard.guard import PassKGuard
from passk_guard.integrations._needs import Need, check_needs
from passk_guard.integrations._parallel import check_trainer_parallelism
from passk_guard.integrations._trainer_adapter import TransformersAdapter
from passk_guard.remedies.anchors import norm
from passk_guard.remedies.gradient_term import HostNorm, add_to_gradients
from passk_guard.runtime.sharding import refuse_splits
from passk_guard.session.session import Session, another_trainer, no_guard_yet
from passk_guard.session.state_file import FILE_NAME, read_state, write_state
from passk_guard.session.trainer_adapter import Arguments

_NEEDS = (
    Need("_get_output_dir", 1, "write beside the trainer's own checkpoints"),
    Need("callback_handler.callbacks", None, "find reporters and other guards"),
    Need("is_world_process_zero", 0, "warn and write on one process only"),
    Need("accelerator.autocast", 0, "compute in the run's precision"),
    Need("accelerator.state", None, "see how the model is shared out"),
    Need("is_deepspeed_enabled", None, "see how the model is shared out"),
)


class GuardCallback(TrainerCallback, ABC):
    """The events; a subclass says which trainers it takes, and as what.

    Attributes:
        config: settings.
    """

    def __init__(self, config: PassKGuardConfig, arguments: Arguments, trainer: Any) -> None:
        self.config = config
        self._arguments = arguments
        self._forget_run()
        if trainer is not None:
            self._meet(trainer)
            self._build()

    def _forget_run(self) -> None:
        self._adapter: Any = None
        self._session: Any = None
        self._model: Any = None  # that the guard was built on
        self._host_norm = HostNorm()

    def __getstate__(self) -> dict[str, Any]:
        """The settings: a copy meets a trainer of its own, and guards it from its start."""
        run = ("_adapter", "_session", "_model", "_host_norm")
        return {name: value for name, value in vars(self).items() if name not in run}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_run()

    @abstractmethod
    def _adapter_class(self, trainer: Any) -> type[TransformersAdapter]:
        """What the guard sees the trainer as.

        Raises:
            TypeError: the trainer is of the wrong class.
        """

    def _meet(self, trainer: Any) -> None:
        if self._session is None:
            adapter = self._adapter_class(trainer)
            check_needs(trainer, _NEEDS, "transformers", ">=4.56.2,<6")
            check_trainer_parallelism(trainer, self.config)
            self._adapter = adapter(trainer, self.config, self._arguments)
            self._session = Session(self._adapter)
        elif self._adapter.trainer is not trainer:
            raise another_trainer()
        guards = [c for c in trainer.callback_handler.callbacks if isinstance(c, GuardCallback)]
        if len(guards) > 1 or (guards and guards[0] is not self):
            raise ValueError(
                "This trainer already has a PassKGuardCallback. One guard per trainer: remove one "
                "with trainer.remove_callback."
            )

    def _build(self) -> None:
        self._session.build()
        self._model = self._adapter.trainer.model

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
        if self._session is None:
            raise no_guard_yet()
        guard: PassKGuard = self._session.guard
        return guard

    # Trainer events -------------------------------------------------------------------------

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Find the trainer in the ``callbacks=[...]`` form: no event receives it."""
        self._meet(_running_trainer())

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check, install the objective, probe the untouched policy."""
        self._meet(_running_trainer())
        trainer = self._adapter.trainer
        # model_init makes a model anew, and FSDP1 puts it into another one. What a guard has seen
        # in this process is not what the checkpoint knows.
        resumed = state.global_step > 0
        if trainer.model is not self._model or (resumed and self.guard.history):
            self._build()
        self._host_norm.read()  # of a step that was cut short
        refuse_splits(trainer.model)
        total, load = state.max_steps if state.max_steps > 0 else None, None
        if resumed:
            folder = _resumed_folder(trainer)
            load = lambda: None if folder is None else read_state(folder / FILE_NAME)  # noqa: E731
        self._session.begin(state.global_step, total, load)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the pass@1 term before the trainer's own backward: clipping and averaging see it."""
        self._session.step_begins(state.global_step)
        anchors = self._session.anchors
        if anchors is None or not anchors.due():
            return
        with self._session.remedy_at_work():
            gradient = anchors.gradient(state.global_step)
            if gradient is not None and not anchors.matched:
                # One step without the term tells the size of the trainer's own gradient.
                self._host_norm.watch(anchors.parameters(), norm(gradient.values()))
            elif gradient is not None:
                factor = anchors.objective.factor * self._adapter.loss_scale()
                add_to_gradients(anchors.parameters(), gradient, factor)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the first look where it has waited for what training makes for its first batch."""
        self._session.before_update(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Probe when one is due. ``control`` is touched only by ``"checkpoint"`` and ``"stop"``."""
        anchors = self._session.anchors
        if anchors is not None and self._host_norm.watching:
            with self._session.remedy_at_work():
                host, own = self._host_norm.read()
                anchors.match(host / self._adapter.loss_scale(), own)
        self._adapter.control = control
        self._session.step_ended(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the guard's state into the checkpoint."""
        if args.should_save:
            folder = Path(self._adapter.folder) / f"checkpoint-{state.global_step}"
            write_state(folder / FILE_NAME, self._session.state, self.config.strict)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Give the trainer its own advantages back, and sum the run up."""
        self._session.end(state.global_step)


def _running_trainer() -> Trainer:
    """The ``Trainer`` whose ``__init__`` or ``train`` is being run: no event is told it.

    Raises:
        RuntimeError: there is none.
    """
    for frame in _frames():
        candidate = frame.f_locals.get("self")
        if isinstance(candidate, Trainer):
            return candidate
    raise RuntimeError(
        "PassKGuardCallback could not find its trainer. Write "
        "trainer.add_callback(PassKGuardCallback(trainer, ...))."
    )


def _resumed_folder(trainer: Any) -> Path | None:
    """The checkpoint that a trainer was told to resume from, where it may lie.

    ``None`` where that is not known: another run's state is not to be taken for this one's.
    """
    for frame in _frames():
        seen = frame.f_locals
        if seen.get("self") is trainer and "resume_from_checkpoint" in seen:
            folder = seen["resume_from_checkpoint"]
            return Path(folder) if isinstance(folder, (str, os.PathLike)) else None
    return None


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back
