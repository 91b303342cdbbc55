"""Every ``transformers.Trainer``: which of its events the guard's session hears, and when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from passk_guard.config import PassKGuardConfig
from passk_guard.guard import PassKGuard
from passk_guard.integrations._needs import Need, check_needs
from passk_guard.integrations._parallel import check_trainer_parallelism
from passk_guard.integrations._running_trainer import resumed_folder, running_trainer
from passk_guard.integrations._trainer_side import TransformersSide
from passk_guard.remedies.anchors import norm
from passk_guard.remedies.gradient_term import HostNorm, add_to_gradients
from passk_guard.runtime.sharding import refuse_splits
from passk_guard.session.session import Session
from passk_guard.session.state_file import FILE_NAME, read_state, write_state

NEEDS = (
    Need("_get_output_dir", 1, "write beside the trainer's own checkpoints"),
    Need("callback_handler.callbacks", None, "find reporters and other guards"),
    Need("is_world_process_zero", 0, "warn and write on one process only"),
    Need("accelerator.autocast", 0, "compute in the run's precision"),
    Need("accelerator.state", None, "see how the model is shared out"),
    Need("is_deepspeed_enabled", None, "see how the model is shared out"),
)


class GuardCallback(TrainerCallback, ABC):
    """The events; an adapter says which trainers it takes and how it builds its guard.

    Attributes:
        config: the settings.
    """

    def __init__(self, config: PassKGuardConfig, trainer: Any) -> None:
        self.config = config
        self._forget_run()
        if trainer is not None:
            self._meet(trainer)
            self._build_anew()

    def _forget_run(self) -> None:
        self._trainer: Any = None
        self._model: Any = None  # that the guard was built on
        self._side = TransformersSide(self.config.strict)
        self._session = Session(self.config, self._side)
        self._host_norm = HostNorm()

    def __getstate__(self) -> dict[str, Any]:
        """The settings: a copy meets a trainer of its own, and guards it from its start."""
        run = ("_trainer", "_model", "_side", "_session", "_host_norm")
        return {name: value for name, value in vars(self).items() if name not in run}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_run()

    @abstractmethod
    def _check(self, trainer: Any) -> None:
        """Refuse a trainer of the wrong class."""

    @abstractmethod
    def _build(self) -> None:
        """Make the guard, once the trainer is known, and attach it to the session."""

    def _build_anew(self) -> None:
        self._build()
        self._model = self._trainer.model

    def _meet(self, trainer: Any) -> None:
        self._session.meet(trainer)
        if self._trainer is None:
            self._check(trainer)
            check_needs(trainer, NEEDS, "transformers", ">=4.56.2,<6")
            check_trainer_parallelism(trainer, self.config)
            self._trainer = trainer
            self._side.found(trainer)
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
        return self._session.guard

    # Trainer events -------------------------------------------------------------------------

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Find the trainer in the ``callbacks=[...]`` form: no event receives it."""
        self._meet(running_trainer())

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check, install the objective, probe the untouched policy."""
        self._meet(running_trainer())
        # model_init makes a model anew, and FSDP1 puts it into another one. What a guard has seen
        # in this process is not what the checkpoint knows.
        resumed = state.global_step > 0
        if self._trainer.model is not self._model or (resumed and self.guard.history):
            self._build_anew()
        self._host_norm.read()  # of a step that was cut short
        refuse_splits(self._trainer.model)
        total, load = state.max_steps if state.max_steps > 0 else None, None
        if resumed:
            folder = resumed_folder(self._trainer)
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
                factor = anchors.objective.factor * self._side.loss_scale()
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
                anchors.match(host / self._side.loss_scale(), own)
        self._side.control = control
        self._session.step_ended(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the guard's state into the checkpoint."""
        if args.should_save:
            folder = Path(self._side.folder) / f"checkpoint-{state.global_step}"
            write_state(folder / FILE_NAME, self._session.state, self.config.strict)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Give the trainer its own advantages back, and sum the run up."""
        self._session.end(state.global_step)

    def _refuse_second_guard(self) -> None:
        callbacks = self._trainer.callback_handler.callbacks
        guards = [c for c in callbacks if isinstance(c, GuardCallback)]
        if len(guards) > 1 or (guards and guards[0] is not self):
            raise ValueError(
                "This trainer already has a PassKGuardCallback. One guard per trainer: remove one "
                "with trainer.remove_callback."
            )
