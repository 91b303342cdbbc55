"""Getting a probe to every reporter of a ``transformers.Trainer``, at its own step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from passk_guard.actions import warn

__all__ = ["Reporters"]


class Reporters:
    """Sends scalars and images to whatever ``report_to`` names.

    ``trainer.log`` would flush the trainer's running averages and clear ``control.should_log``, so
    the reporting callbacks are called directly. Keys get the reporters' ``train/`` prefix.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._complained = False

    def _callbacks(self) -> list[Any]:
        from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

        kinds = tuple(INTEGRATION_TO_CALLBACK.values())
        return [c for c in self._trainer.callback_handler.callbacks if isinstance(c, kinds)]

    @property
    def any(self) -> bool:
        """Whether anything will be written."""
        return bool(self._callbacks())

    def scalars(self, values: dict[str, float]) -> None:
        """Write scalars at the trainer's present step."""
        trainer = self._trainer
        for callback in self._callbacks():
            try:
                callback.on_log(
                    trainer.args,
                    trainer.state,
                    copy.copy(trainer.control),
                    logs=dict(values),
                    model=trainer.model,
                )
            except Exception as error:
                self._complain(f"{type(callback).__name__}: {type(error).__name__}: {error}")

    def figure(self, name: str, draw: Callable[[], Any]) -> None:
        """Draw a matplotlib figure and write it to TensorBoard; nothing is drawn without one."""
        writers = [getattr(callback, "tb_writer", None) for callback in self._callbacks()]
        for writer in filter(None, writers):
            try:
                writer.add_figure(name, draw(), self._trainer.state.global_step)
                writer.flush()
            except Exception as error:
                self._complain(f"TensorBoard image: {type(error).__name__}: {error}")

    def _complain(self, reason: str) -> None:
        if not self._complained:
            self._complained = True
            warn(f"a reporter failed, which is said only once. Training goes on. {reason}")
