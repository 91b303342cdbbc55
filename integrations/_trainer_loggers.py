"""Getting a probe to every reporter of a ``transformers.Trainer``, at its own step."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from passk_guard.errors import reason_of, survived, warn
from passk_guard.integrations._mlflow import mlflow_keys
from passk_guard.integrations._tensorboard import write_to_tensorboard
from passk_guard.integrations._wandb import raise_alert, wandb_images
from passk_guard.reporting.report import Report


class TrainerLoggers:
    """Sends a report to whatever ``report_to`` names: texts and images to TensorBoard, images and
    alerts to W&B and trackio.

    ``trainer.log`` would flush the trainer's running averages and clear ``control.should_log``, so
    the reporting callbacks are called directly. Keys get the reporters' ``train/`` prefix, of
    which MLflow's has none.
    """

    def __init__(self, trainer: Any, strict: bool = False) -> None:
        self._trainer, self._strict = trainer, strict
        self._complained = False
        self._laid_out: Any = None  # the writer that has the layout: each run has its own

    def _callbacks(self) -> list[Any]:
        from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

        kinds = tuple(INTEGRATION_TO_CALLBACK.values())
        return [c for c in self._trainer.callback_handler.callbacks if isinstance(c, kinds)]

    @property
    def any(self) -> bool:
        """Whether anything will be written."""
        return bool(self._callbacks())

    def send(self, report: Report) -> None:
        """Write a report at the trainer's present step; figures are drawn only where shown."""
        trainer = self._trainer
        for callback in self._callbacks():
            name = type(callback).__name__
            values: dict[str, Any] = dict(report.scalars)
            if hasattr(callback, "_ml_flow"):
                values = mlflow_keys(report.scalars)
            api = getattr(callback, "_wandb", None) or getattr(callback, "_trackio", None)
            with self._safely(f"pictures for {name}"):
                values |= {} if api is None else wandb_images(api, report)
            with self._safely(name):
                callback.on_log(
                    trainer.args,
                    trainer.state,
                    copy.copy(trainer.control),
                    logs=values,
                    model=trainer.model,
                )
            with self._safely(f"alert of {name}"):
                raise_alert(api, report)
            writer = getattr(callback, "tb_writer", None)
            if writer is not None:
                with self._safely("TensorBoard"):
                    laid_out = writer is self._laid_out
                    write_to_tensorboard(writer, report, None if laid_out else "train/")
                    self._laid_out = writer

    @contextmanager
    def _safely(self, name: str) -> Iterator[None]:
        """Nothing that goes wrong here reaches the run, and the rest is written."""

        def complain(error: Exception) -> None:
            if not self._complained:
                self._complained = True
                warn(
                    "a reporter failed (this warning is shown once). Training goes on. "
                    f"{name}: {reason_of(error)}"
                )

        with survived(self._strict, complain):
            yield
