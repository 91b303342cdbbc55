"""A Lightning trainer and its module as the guard sees them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from passk_guard.config import PassKGuardConfig
from passk_guard.errors import reason_of, survived, warn
from passk_guard.integrations._trackers import mlflow_keys, raise_alert, write_to_tensorboard
from passk_guard.reporting.report import Report
from passk_guard.session.trainer_adapter import Arguments, TrainerAdapter


class LightningAdapter(TrainerAdapter):
    """See :class:`~passk_guard.session.trainer_adapter.TrainerAdapter`.

    Attributes:
        told: the last value of each scalar.
    """

    def __init__(
        self, trainer: Any, module: Any, config: PassKGuardConfig, arguments: Arguments
    ) -> None:
        super().__init__(trainer, config, arguments)
        self._module = module
        self._laid_out = False
        self.told: dict[str, float] = {}

    @property
    def module(self) -> nn.Module:
        """The LightningModule."""
        module: nn.Module = self._module
        return module

    @property
    def model(self) -> Any:
        """The module's ``model``, if it has one."""
        return getattr(self._module, "model", None)

    @property
    def tokenizer(self) -> Any:
        """The module's ``tokenizer``, if it has one."""
        return getattr(self._module, "tokenizer", None)

    @property
    def name(self) -> str:
        """The module's class."""
        return type(self._module).__name__

    @property
    def folder(self) -> str | None:
        """The trainer's ``default_root_dir``, if it is to be written to."""
        trainer, wanted = self.trainer, self.config.journal
        if wanted is None:
            wanted = bool(trainer.loggers or trainer.checkpoint_callbacks)
            wanted = wanted and not trainer.fast_dev_run
        return str(trainer.default_root_dir) if wanted else None

    @property
    def hint(self) -> str:
        """Whether there is a logger."""
        if self.trainer.loggers:
            return ""
        return "The trainer has no logger: try TensorBoardLogger(...)."

    def shows_progress(self) -> bool:
        """Whether there is a progress bar, on this process."""
        bar = self.trainer.progress_bar_callback
        return self.is_main and bar is not None and bool(getattr(bar, "is_enabled", True))

    def optimizer(self) -> Any:
        """The first optimizer."""
        return self.trainer.optimizers[0]

    def autocast(self) -> AbstractContextManager[Any]:
        """The trainer's mixed precision."""
        found = getattr(self.trainer.precision_plugin, "forward_context", nullcontext)
        context: AbstractContextManager[Any] = found()
        return context

    def samples_per_step(self) -> int | None:
        """Samples that an optimizer step trains on, where the loader tells."""
        trainer = self.trainer
        size = getattr(trainer.train_dataloader, "batch_size", None)
        if not isinstance(size, int):
            return None
        return size * int(trainer.accumulate_grad_batches) * int(trainer.world_size)

    def tell(self, scalars: Mapping[str, float]) -> None:
        """To monitors such as ``ModelCheckpoint``: in every epoch, with or without a look."""
        self.told.update(scalars)
        device = self.trainer.strategy.root_device
        self.trainer.callback_metrics.update(
            {key: torch.tensor(v, dtype=torch.float32, device=device) for key, v in scalars.items()}
        )

    def save(self, step: int) -> str | None:
        """Saved at once, beside the run's other checkpoints."""

        def not_saved(error: Exception) -> None:
            warn(f"the checkpoint that was asked for was not saved: {reason_of(error)}")

        trainer = self.trainer
        folder = getattr(trainer.checkpoint_callback, "dirpath", None) or trainer.default_root_dir
        path = Path(folder) / f"passk_guard-step={step}.ckpt"
        with survived(self.config.strict, not_saved):
            trainer.save_checkpoint(path)
        return str(path)

    def stop(self) -> None:
        """Training ends after this step."""
        self.trainer.should_stop = True

    def send(self, report: Report) -> None:
        """To the trainer's loggers: ``pl_module.log`` would write at few steps only."""
        for logger in self.trainer.loggers:
            with self.reporting_to(type(logger).__name__):
                to = getattr(logger, "experiment", None)
                mlflow = hasattr(to, "log_batch")
                values = mlflow_keys(report.scalars) if mlflow else report.scalars
                logger.log_metrics(values, step=report.step)
                raise_alert(to, report)
                if hasattr(to, "add_figure"):
                    write_to_tensorboard(to, report, None if self._laid_out else "")
                elif hasattr(logger, "log_image"):
                    for name, draw in report.figures.items():
                        logger.log_image(key=name, images=[draw()], step=report.step)
        self._laid_out = True
