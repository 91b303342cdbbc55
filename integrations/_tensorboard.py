"""What TensorBoard gets beside scalars, from any trainer."""

from __future__ import annotations

from typing import Any

from passk_guard.reporting.report import Report
from passk_guard.reporting.scalars import chart_layout


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
