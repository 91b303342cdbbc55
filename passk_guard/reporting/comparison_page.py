"""Two checkpoints side by side, from the comparison's record: a figure, and an HTML page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from passk_guard.reporting.figures import BAD, BASE, GOOD, MUTED
from passk_guard.reporting.svg import picture
from passk_guard.version import __version__

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST = 200  # prompts of a table; JSON has them all


def comparison_page(record: Mapping[str, Any]) -> str:
    """The page.

    Args:
        record: what :meth:`passk_guard.Comparison.record` gives.
    """
    from passk_guard.reporting.rendering import render

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
            lambda: _alone(_levels, record),
            "Chart: pass@k before and after, over k. The table of all k has its figures.",
        ),
        change=picture(
            lambda: _alone(_change, record),
            f"Chart: change of pass@k over k. Pass@1 changed by {100 * one['change']:+.1f} points.",
        ),
        version=__version__,
    )


def comparison_figure(record: Mapping[str, Any]) -> Figure:
    """Pass@k before and after, and its change, side by side."""
    figure = Figure(figsize=(9.6, 3.4), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    _levels(left, record)
    _change(right, record)
    return figure


def _alone(draw: Callable[..., None], record: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(4.8, 3.1), dpi=140, layout="constrained")
    draw(figure.subplots(), record)
    return figure


def _levels(axes: Axes, record: Mapping[str, Any]) -> None:
    changes = record["changes"]
    ks = [one["k"] for one in changes]
    for name, color, label in (("before", MUTED, "before"), ("after", BASE, "after")):
        low, high = ([one[f"{name}_{end}"] for one in changes] for end in ("low", "high"))
        axes.fill_between(ks, low, high, color=color, alpha=0.15, lw=0)
        axes.plot(ks, [one[name] for one in changes], color=color, marker=".", label=label)
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("pass@k, ± 95 %")
    axes.set_title("What is solved in k tries", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    _plain(axes, ks)


def _change(axes: Axes, record: Mapping[str, Any]) -> None:
    changes = record["changes"]
    ks = [one["k"] for one in changes]
    value, low, high = ([100 * one[name] for one in changes] for name in ("change", "low", "high"))
    axes.axhline(0, color=MUTED, lw=0.8)
    axes.axhline(-100 * record["tolerance"], color=BAD, lw=0.8, ls=":")
    color = BAD if high[0] < 0 else GOOD if low[0] > 0 else BASE
    axes.fill_between(ks, low, high, color=color, alpha=0.18, lw=0)
    axes.plot(ks, value, color=color, marker=".")
    if len(ks) == 1:
        axes.errorbar(ks, value, [[value[0] - low[0]], [high[0] - value[0]]], color=color)
    axes.set_ylabel("change in points, ± 95 %")
    axes.set_title("Change of pass@k (dotted: accepted for pass@1)", fontsize=10)
    _plain(axes, ks)


def _plain(axes: Axes, ks: list[int]) -> None:
    axes.set_xlabel("k, tries")
    if len(ks) > 1 and ks[-1] >= 32:
        axes.set_xscale("log", base=2)
        powers = [k for k in ks if k & (k - 1) == 0]
        axes.set_xticks(powers, [str(k) for k in powers])
        axes.minorticks_off()
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
