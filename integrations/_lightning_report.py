"""Getting a probe to Lightning's loggers, at its own step."""

from __future__ import annotations

from typing import Any

from passk_guard.actions import warn
from passk_guard.probe import Probe, Rescore
from passk_guard.processes import world
from passk_guard.reporting.scalars import scalars

__all__ = ["LightningReporters"]


class LightningReporters:
    """Sends scalars and images to the trainer's loggers.

    ``pl_module.log`` alone would write only at every ``log_every_n_steps``-th step, so loggers are
    called directly; ``pl_module.log`` makes the values known to ``ModelCheckpoint(monitor=...)``
    and the like.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._complained = False

    def report(self, found: Probe | Rescore, overhead: float, module: Any) -> None:
        """Write what was found. Nothing that goes wrong here reaches the run.

        Args:
            found: by the guard.
            overhead: share of the run's time.
            module: the ``LightningModule``; ``None`` where it cannot log single steps, which is
                before the first.
        """
        values = {**scalars(found), "passk_guard/overhead": overhead}
        try:
            if module is not None:
                module.log_dict(values, logger=False, on_step=True, on_epoch=False)
        except Exception as error:
            self._complain(f"pl_module.log: {type(error).__name__}: {error}")
        if world()[0] != 0:
            return
        for logger in self._trainer.loggers:
            try:
                logger.log_metrics(values, step=found.step)
                if isinstance(found, Probe) and found.curve:
                    _log_figure(logger, "passk_guard/alignment_curve", found)
            except Exception as error:
                self._complain(f"{type(logger).__name__}: {type(error).__name__}: {error}")

    def _complain(self, reason: str) -> None:
        if not self._complained:
            self._complained = True
            warn(f"a logger failed, which is said only once. Training goes on. {reason}")


def _log_figure(logger: Any, name: str, probe: Probe) -> None:
    """Draw only where somebody takes it: TensorBoard's writer, or a logger's ``log_image``."""
    writer: Any = getattr(logger, "experiment", None)
    draws, images = hasattr(writer, "add_figure"), hasattr(logger, "log_image")
    if not (draws or images):
        return
    from passk_guard.reporting.figures import alignment_curve_figure  # matplotlib is an extra

    figure = alignment_curve_figure(probe)
    if draws:
        writer.add_figure(name, figure, probe.step)
        writer.flush()
    else:
        logger.log_image(key=name, images=[figure], step=probe.step)
