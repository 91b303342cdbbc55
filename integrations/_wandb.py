"""What W&B gets beside scalars, and trackio, which has the same interface: pictures and alerts."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from passk_guard.reporting.report import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TITLE = "pass@1 is at risk"  # W&B takes 64 characters


def raise_alert(to: Any, report: Report) -> None:
    """Raise a look's alarm, if there is one, where alerts are shown, mailed or posted.

    Both show its text as it is. Prompts are in it only with ``log_prompts=True``.

    Args:
        to: ``wandb``, ``trackio`` or a run of W&B; whatever has no alerts is passed over.
        report: of a look whose scalars are logged already: trackio dates an alert by them.
    """
    if report.alarm is not None and hasattr(to, "alert"):
        levels = getattr(to, "AlertLevel", None)  # a run knows them by name only
        level = "WARN" if levels is None else levels.WARN
        to.alert(title=_TITLE, text=report.alarm, level=level)


def wandb_images(api: Any, report: Report) -> dict[str, Any]:
    """A look's figures as values for ``api.log``; none where there is nothing to draw with.

    Args:
        api: ``wandb`` or ``trackio``.
        report: what to draw.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return {}
    return {name: api.Image(_pixels(draw())) for name, draw in report.figures.items()}


def _pixels(figure: Figure) -> np.ndarray:
    """``(height, width, 4)``, 0 to 255: the one form that both take."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())
