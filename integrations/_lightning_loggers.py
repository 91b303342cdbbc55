"""Getting a report to Lightning's loggers, at its own step."""

from __future__ import annotations

from functools import partial
from typing import Any

from passk_guard.errors import reason_of, survived, warn
from passk_guard.integrations._mlflow import mlflow_keys
from passk_guard.integrations._tensorboard import write_to_tensorboard
from passk_guard.integrations._wandb import raise_alert
from passk_guard.reporting.report import Report


class LightningLoggers:
    """Sends a report to the trainer's loggers.

    ``pl_module.log`` would write only at every ``log_every_n_steps``-th step, so loggers are called
    directly.
    """

    def __init__(self, trainer: Any, strict: bool = False) -> None:
        self._trainer, self._strict = trainer, strict
        self._complained = self._laid_out = False

    def send(self, report: Report) -> None:
        """Write a report. Nothing that goes wrong here reaches the run."""
        for logger in self._trainer.loggers:
            with survived(self._strict, partial(self._complain, type(logger).__name__)):
                to = getattr(logger, "experiment", None)
                mlflow = hasattr(to, "log_batch")
                values = mlflow_keys(report.scalars) if mlflow else report.scalars
                logger.log_metrics(values, step=report.step)
                raise_alert(to, report)
                self._show(logger, to, report)
        self._laid_out = True

    def _show(self, logger: Any, writer: Any, report: Report) -> None:
        """Draw only where somebody takes it: TensorBoard's writer, or a logger's ``log_image``."""
        if hasattr(writer, "add_figure"):
            write_to_tensorboard(writer, report, None if self._laid_out else "")
        elif hasattr(logger, "log_image"):
            for name, draw in report.figures.items():
                logger.log_image(key=name, images=[draw()], step=report.step)

    def _complain(self, what: str, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            warn(
                "a logger failed (this warning is shown once). Training goes on. "
                f"{what}: {reason_of(error)}"
            )
