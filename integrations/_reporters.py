"""Getting a probe to every reporter of a ``transformers.Trainer``, at its own step."""

from __future__ import annotations

import copy
from typing import Any

from passk_guard.actions import warn
from passk_guard.integrations._tensorboard import write_to_tensorboard
from passk_guard.reporting.report import Report

__all__ = ["Reporters"]


class Reporters:
    """Sends a report to whatever ``report_to`` names: texts and images to TensorBoard.

    ``trainer.log`` would flush the trainer's running averages and clear ``control.should_log``, so
    the reporting callbacks are called directly. Keys get the reporters' ``train/`` prefix.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._complained = self._laid_out = False

    def _callbacks(self) -> list[Any]:
        from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

        kinds = tuple(INTEGRATION_TO_CALLBACK.values())
        return [c for c in self._trainer.callback_handler.callbacks if isinstance(c, kinds)]

    @property
    def any(self) -> bool:
        """Whether anything will be written."""
        return bool(self._callbacks())

    def send(self, report: Report) -> None:
        """Write a report at the trainer's present step; figures are drawn only for TensorBoard."""
        trainer = self._trainer
        for callback in self._callbacks():
            try:
                callback.on_log(
                    trainer.args,
                    trainer.state,
                    copy.copy(trainer.control),
                    logs=dict(report.scalars),
                    model=trainer.model,
                )
            except Exception as error:
                self._complain(f"{type(callback).__name__}: {type(error).__name__}: {error}")
            writer = getattr(callback, "tb_writer", None)
            if writer is not None:
                try:
                    write_to_tensorboard(writer, report, None if self._laid_out else "train/")
                except Exception as error:
                    self._complain(f"TensorBoard: {type(error).__name__}: {error}")
        self._laid_out = True

    def _complain(self, reason: str) -> None:
        if not self._complained:
            self._complained = True
            warn(f"a reporter failed, which is said only once. Training goes on. {reason}")
