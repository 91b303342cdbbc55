"""A ``transformers.Trainer`` as the guard sees it."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from typing import Any

from torch import nn

from passk_guard.config import PassKGuardConfig
from passk_guard.integrations._parallel import why_no_anchors
from passk_guard.integrations._trackers import (
    mlflow_keys,
    raise_alert,
    wandb_images,
    write_to_tensorboard,
)
from passk_guard.reporting.report import Report
from passk_guard.session.trainer_adapter import Arguments, GuardParts, TrainerAdapter


class TransformersAdapter(TrainerAdapter):
    """See :class:`~passk_guard.session.trainer_adapter.TrainerAdapter`.

    Attributes:
        control: the trainer's control object, of the event that is being handled.
    """

    control: Any = None

    def __init__(self, trainer: Any, config: PassKGuardConfig, arguments: Arguments) -> None:
        super().__init__(trainer, config, arguments)
        self._laid_out: Any = None  # the TensorBoard writer that has the layout: one a run

    def read_trainer(self) -> None:
        """Take what the trainer has now: training may have made much of it anew."""
        trainer = self.trainer
        self.prompts = trainer.eval_dataset
        self.training_prompts = trainer.train_dataset
        self.reward_funcs = getattr(trainer, "reward_funcs", None)
        self.micro_batch = trainer.args.per_device_train_batch_size
        self.state = trainer.state
        self.why_no_mix = self.why_no_mix or why_no_anchors(trainer)

    def build(self) -> GuardParts:
        """A guard that samples and verifies by itself."""
        self.read_trainer()
        return super().build()

    @property
    def module(self) -> nn.Module:
        """The trainer's model."""
        module: nn.Module = self.trainer.model
        return module

    model = module

    @property
    def tokenizer(self) -> Any:
        """The trainer's processing class."""
        return self.trainer.processing_class

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that warns and writes."""
        return bool(self.trainer.is_world_process_zero())

    @property
    def folder(self) -> str:
        """Where the trainer puts its checkpoints: each trial of a search has its own."""
        trial = getattr(self.trainer, "_trial", None)  # unknown to a training loop of one's own
        return str(self.trainer._get_output_dir(trial))

    @property
    def hint(self) -> str:
        """Since transformers 5 nothing is reported unless it is asked for."""
        return "" if self._reporters() else "No reporter: try report_to='tensorboard'."

    def shows_progress(self) -> bool:
        """Whether there is a progress bar, on this process."""
        return self.is_main and not self.trainer.args.disable_tqdm

    def optimizer(self) -> Any:
        """The trainer's optimizer."""
        return self.trainer.optimizer

    def autocast(self) -> AbstractContextManager[Any]:
        """The trainer's mixed precision."""
        context: AbstractContextManager[Any] = self.trainer.accelerator.autocast()
        return context

    def samples_per_step(self) -> int:
        """Sequences that an optimizer step trains on."""
        args = self.trainer.args
        each: int = args.per_device_train_batch_size * args.gradient_accumulation_steps
        return each * int(self.trainer.accelerator.num_processes)

    def save(self, step: int) -> None:
        """Saved by the trainer, after this event."""
        self.control.should_save = True

    def stop(self) -> None:
        """Training ends after this event."""
        self.control.should_training_stop = True

    def loss_scale(self) -> float:
        """What float16 training multiplies its loss by."""
        scaler = getattr(self.trainer.accelerator, "scaler", None)
        return float(scaler.get_scale()) if scaler else 1.0

    def _reporters(self) -> list[Any]:
        from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

        kinds = tuple(INTEGRATION_TO_CALLBACK.values())
        return [c for c in self.trainer.callback_handler.callbacks if isinstance(c, kinds)]

    def send(self, report: Report) -> None:
        """To whatever ``report_to`` names, at the trainer's present step.

        ``trainer.log`` would flush the trainer's running averages and clear ``control.should_log``,
        so the reporting callbacks are called directly. Keys get the reporters' ``train/`` prefix,
        of which MLflow's has none.
        """
        trainer = self.trainer
        for callback in self._reporters():
            name = type(callback).__name__
            values: dict[str, Any] = dict(report.scalars)
            if hasattr(callback, "_ml_flow"):
                values = mlflow_keys(report.scalars)
            api = getattr(callback, "_wandb", None) or getattr(callback, "_trackio", None)
            with self.reporting_to(f"pictures for {name}"):
                values |= {} if api is None else wandb_images(api, report)
            with self.reporting_to(name):
                callback.on_log(
                    trainer.args,
                    trainer.state,
                    copy.copy(trainer.control),
                    logs=values,
                    model=trainer.model,
                )
            with self.reporting_to(f"alert of {name}"):
                raise_alert(api, report)
            writer = getattr(callback, "tb_writer", None)
            if writer is not None:
                with self.reporting_to("TensorBoard"):
                    laid_out = writer is self._laid_out
                    write_to_tensorboard(writer, report, None if laid_out else "train/")
                    self._laid_out = writer
