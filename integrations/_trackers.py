"""What TensorBoard, W&B, trackio and MLflow get of a report, each in its own way."""

from __future__ import annotations

import importlib.util
import re
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from passk_guard.reporting.report import Report
from passk_guard.reporting.scalars import chart_layout

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST_KEY = 200  # MLflow itself stops at 250


def write_to_tensorboard(writer: Any, report: Report, layout: str | None) -> None:
    """Write texts, figures and, once, the layout of the *custom scalars* tab.

    Args:
        writer: a ``SummaryWriter``.
        report: what to write.
        layout: prefix of the scalars' keys, where the layout is still to be written.
    """
    if layout is not None:
        writer.add_custom_scalars(chart_layout(layout))
    for name, text in report.texts.items():
        writer.add_text(name, text, report.step)
    for name, draw in report.figures.items():
        writer.add_figure(name, draw(), report.step)
    writer.flush()


def raise_alert(to: Any, report: Report) -> None:
    """Raise a look's alarm, if there is one, where alerts are shown, mailed or posted.

    Prompts are in its text only with ``log_prompts=True``.

    Args:
        to: ``wandb``, ``trackio`` or a run of W&B; whatever has no alerts is passed over.
        report: a look, whose scalars are logged already: trackio dates an alert by them.
    """
    if report.alarm is not None and hasattr(to, "alert"):
        levels = getattr(to, "AlertLevel", None)  # a run knows them by name only
        level = "WARN" if levels is None else levels.WARN
        to.alert(title="pass@1 is at risk", text=report.alarm, level=level)


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


def mlflow_keys(values: Mapping[str, float]) -> dict[str, float]:
    """The same values by keys that MLflow takes; for one bad key it refuses all of a look.

    A store of files makes a file of ``track``, so ``track/<group>`` becomes ``track.<group>``.
    Signs that MLflow refuses become underscores, and four hexadecimal digits tell such labels
    apart.

    >>> mlflow_keys({"passk_guard/track": 0.5, "passk_guard/track/C++": 0.25})
    {'passk_guard/track': 0.5, 'passk_guard/track.C__-3079': 0.25}
    """
    return {_mlflow_key(key): value for key, value in values.items()}


def _mlflow_key(key: str) -> str:
    head, name, *label = key.split("/", 2)
    if not label:
        return key
    spelt = re.sub(r"[^0-9A-Za-z_\-. ]", "_", label[0])[:_LONGEST_KEY]
    if spelt != label[0]:
        spelt += f"-{zlib.crc32(key.encode()) & 0xFFFF:04x}"
    return f"{head}/{name}.{spelt}"
