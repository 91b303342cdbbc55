"""What a Lightning trainer and its module give to the session, and offer to the guard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from passk_guard.config import PassKGuardConfig
from passk_guard.errors import reason_of, survived, warn
from passk_guard.integrations._lightning_loggers import LightningLoggers
from passk_guard.reporting.report import Report
from passk_guard.runtime.processes import world
from passk_guard.runtime.progress import Progress
from passk_guard.session.host import Host


class LightningSide:
    """See :class:`~passk_guard.session.session.TrainerSide`.

    Args:
        config: settings.

    Attributes:
        told: the last value of each scalar.
    """

    def __init__(self, config: PassKGuardConfig) -> None:
        self._strict, self._journal = config.strict, config.journal
        self._trainer: Any = None
        self._module: Any = None
        self.told: dict[str, float] = {}

    def found(self, trainer: Any, module: Any) -> None:
        """Both are known."""
        self._trainer, self._module = trainer, module
        self._loggers = LightningLoggers(trainer, self._strict)

    @property
    def name(self) -> str:
        """The module's class."""
        return type(self._module).__name__

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that warns and writes."""
        return world()[0] == 0

    @property
    def folder(self) -> str | None:
        """The trainer's ``default_root_dir``, if it is to be written to."""
        trainer, wanted = self._trainer, self._journal
        if wanted is None:
            wanted = bool(trainer.loggers or trainer.checkpoint_callbacks)
            wanted = wanted and not trainer.fast_dev_run
        return str(trainer.default_root_dir) if wanted else None

    @property
    def hint(self) -> str:
        """Whether there is a logger."""
        return (
            ""
            if self._trainer.loggers
            else "The trainer has no logger: try TensorBoardLogger(...)."
        )

    def shows_progress(self) -> bool:
        """Whether there is a progress bar, on this process."""
        bar = self._trainer.progress_bar_callback
        return self.is_main and bar is not None and bool(getattr(bar, "is_enabled", True))

    def optimizer(self) -> Any:
        """The first one."""
        return self._trainer.optimizers[0]

    def send(self, report: Report) -> None:
        """To the trainer's loggers."""
        self._loggers.send(report)

    def tell(self, scalars: Mapping[str, float]) -> None:
        """To monitors such as ``ModelCheckpoint``: in every epoch, with or without a look."""
        self.told.update(scalars)
        device = self._trainer.strategy.root_device
        self._trainer.callback_metrics.update(
            {key: torch.tensor(v, dtype=torch.float32, device=device) for key, v in scalars.items()}
        )

    def save(self, step: int) -> str | None:
        """Saved at once, beside the run's other checkpoints."""
        trainer = self._trainer
        folder = getattr(trainer.checkpoint_callback, "dirpath", None) or trainer.default_root_dir
        path = Path(folder) / f"passk_guard-step={step}.ckpt"
        with survived(self._strict, _not_saved):
            trainer.save_checkpoint(path)
        return str(path)

    def stop(self) -> None:
        """Training ends after this step."""
        self._trainer.should_stop = True


def _not_saved(error: Exception) -> None:
    warn(f"the checkpoint that was asked for was not saved: {reason_of(error)}")


def _batch(trainer: Any) -> int | None:
    """Samples that an optimizer step trains on, where the loader tells."""
    size = getattr(trainer.train_dataloader, "batch_size", None)
    if not isinstance(size, int):
        return None
    return size * int(trainer.accumulate_grad_batches) * int(trainer.world_size)


def module_host(
    trainer: Any,
    module: Any,
    say: Callable[[str], None],
    progress: Progress,
    why_no_mix: str | None = None,
) -> Host:
    """What the module offers to its guard."""
    return Host(
        name=type(module).__name__,
        module=module,
        model=getattr(module, "model", None),
        tokenizer=getattr(module, "tokenizer", None),
        optimizer=lambda: trainer.optimizers[0],
        say=say,
        progress=progress,
        samples_per_step=lambda: _batch(trainer),
        autocast=getattr(trainer.precision_plugin, "forward_context", nullcontext),
        why_no_mix=why_no_mix,
    )
