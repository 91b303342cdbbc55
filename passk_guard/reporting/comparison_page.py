"""Two checkpoints side by side as one HTML page, made from the comparison's record alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from passk_guard.reporting.comparison_figures import change_over_k, levels_over_k
from passk_guard.reporting.rendering import render
from passk_guard.reporting.svg import picture
from passk_guard.version import __version__

_MOST = 200  # prompts of a table; JSON has them all


def comparison_page(record: Mapping[str, Any]) -> str:
    """The page.

    Args:
        record: what :meth:`passk_guard.Comparison.record` gives.
    """
    one = record["changes"][0]
    return render(
        "comparison_page.html.j2",
        {},
        found=record,
        one=one,
        lists=[
            (name, title, record[name][:_MOST], len(record[name]))
            for name, title in (("lost", "Lost"), ("won", "Won"))
        ],
        levels=picture(
            lambda: levels_over_k(record),
            "Chart: pass@k before and after, over k. The table of all k has its figures.",
        ),
        change=picture(
            lambda: change_over_k(record),
            f"Chart: change of pass@k over k. Pass@1 changed by {100 * one['change']:+.1f} points.",
        ),
        version=__version__,
    )
