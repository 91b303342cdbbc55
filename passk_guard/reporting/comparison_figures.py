"""Pictures of two checkpoints side by side, with matplotlib, from a comparison's record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from passk_guard.reporting.figures import BAD, BASE, GOOD, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Record = Mapping[str, Any]
"""What :meth:`passk_guard.Comparison.record` gives."""


def comparison_figure(record: Record) -> Figure:
    """Pass@k before and after, and its change, side by side."""
    figure = Figure(figsize=(9.6, 3.4), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    _levels(left, record)
    _change(right, record)
    return figure


def levels_over_k(record: Record) -> Figure:
    """Pass@k before and after over k, with 95 % bands."""
    figure = Figure(figsize=(4.8, 3.1), dpi=140, layout="constrained")
    _levels(figure.subplots(), record)
    return figure


def change_over_k(record: Record) -> Figure:
    """The change of pass@k over k, with its band, and the fall that is accepted."""
    figure = Figure(figsize=(4.8, 3.1), dpi=140, layout="constrained")
    _change(figure.subplots(), record)
    return figure


def _levels(axes: Axes, record: Record) -> None:
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


def _change(axes: Axes, record: Record) -> None:
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
