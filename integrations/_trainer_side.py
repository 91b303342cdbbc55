"""What a ``transformers.Trainer`` gives to the session, and offers to the guard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from passk_guard.integrations._trainer_loggers import TrainerLoggers
from passk_guard.reporting.report import Report
from passk_guard.runtime.progress import Progress
from passk_guard.session.host import Host


class TransformersSide:
    """See :class:`~passk_guard.session.session.TrainerSide`.

    Args:
        strict: raise what goes wrong in a reporter.

    Attributes:
        control: of the event that is being handled.
    """

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self._trainer: Any = None
        self.control: Any = None

    def found(self, trainer: Any) -> None:
        """The trainer is known."""
        self._trainer = trainer
        self._loggers = TrainerLoggers(trainer, self._strict)

    @property
    def name(self) -> str:
        """The trainer's class."""
        return type(self._trainer).__name__

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that warns and writes."""
        return bool(self._trainer.is_world_process_zero())

    @property
    def folder(self) -> str:
        """Where the trainer puts its checkpoints: each trial of a search has its own."""
        trial = getattr(self._trainer, "_trial", None)  # unknown to a training loop of one's own
        return str(self._trainer._get_output_dir(trial))

    @property
    def hint(self) -> str:
        """Since transformers 5 nothing is reported unless it is asked for."""
        return "" if self._loggers.any else "No reporter: try report_to='tensorboard'."

    def shows_progress(self) -> bool:
        """Whether there is a progress bar, on this process."""
        return self.is_main and not self._trainer.args.disable_tqdm

    def optimizer(self) -> Any:
        """The trainer's."""
        return self._trainer.optimizer

    def send(self, report: Report) -> None:
        """To whatever ``report_to`` names."""
        self._loggers.send(report)

    def tell(self, scalars: Mapping[str, float]) -> None:
        """Nothing within the trainer asks for them."""

    def save(self, step: int) -> None:
        """Saved by the trainer, after this event."""
        self.control.should_save = True

    def stop(self) -> None:
        """Training ends after this event."""
        self.control.should_training_stop = True

    def loss_scale(self) -> float:
        """What float16 training multiplies its loss by."""
        scaler = getattr(self._trainer.accelerator, "scaler", None)
        return float(scaler.get_scale()) if scaler else 1.0


def samples_per_step(trainer: Any) -> int:
    """Sequences that an optimizer step trains on."""
    args = trainer.args
    each: int = args.per_device_train_batch_size * args.gradient_accumulation_steps
    return each * int(trainer.accelerator.num_processes)


def trainer_host(
    trainer: Any,
    say: Callable[[str], None],
    progress: Progress,
    why_no_mix: str | None = None,
) -> Host:
    """What the trainer offers to its guard."""
    return Host(
        name=type(trainer).__name__,
        module=trainer.model,
        model=trainer.model,
        tokenizer=trainer.processing_class,
        optimizer=lambda: trainer.optimizer,
        say=say,
        progress=progress,
        prompts=trainer.eval_dataset,
        training_prompts=trainer.train_dataset,
        reward_funcs=getattr(trainer, "reward_funcs", None),
        micro_batch=trainer.args.per_device_train_batch_size,
        autocast=trainer.accelerator.autocast,
        state=trainer.state,
        samples_per_step=lambda: samples_per_step(trainer),
        why_no_mix=why_no_mix,
    )
