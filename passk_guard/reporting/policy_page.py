"""A policy by itself, from its record: a figure, and an HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from passk_guard.reporting.figures import BAD, BASE, GOOD, MUTED
from passk_guard.reporting.probe_pictures import probe_pictures
from passk_guard.reporting.snapshot import Snapshot
from passk_guard.reporting.svg import picture
from passk_guard.statistics.interval import Z95
from passk_guard.version import __version__

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def policy_page(record: Mapping[str, Any]) -> str:
    """The page.

    Args:
        record: of a :class:`~passk_guard.PolicyProbe`, or such as its journal keeps.
    """
    from passk_guard.reporting.rendering import quoted, render

    shown = Snapshot.read(None, record["k"], record["picture"])
    pictured = len(shown.rows) > 1
    return render(
        "policy_page.html.j2",
        quoted(record["conflict"] or {"prompts": [], "pairs": []}),
        found=record,
        at={one["k"]: one for one in record["pass_at"]},
        levels=picture(
            lambda: _pass_at_figure(record),
            "Chart: pass@k over k. The table of all k has its figures.",
        ),
        shown=shown if pictured else None,
        pictures=probe_pictures(shown) if pictured else None,
        version=__version__,
    )


def policy_figure(record: Mapping[str, Any]) -> Figure:
    """Pass@k over k with its band, and what a pass@k step would do, side by side."""
    figure = Figure(figsize=(9.6, 3.4), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    _pass_at(left, record)
    _curve(right, record)
    return figure


def _pass_at_figure(record: Mapping[str, Any]) -> Figure:
    """Pass@k over k, with its 95 % band."""
    figure = Figure(figsize=(4.8, 2.9), dpi=140, layout="constrained")
    _pass_at(figure.subplots(), record)
    return figure


def _pass_at(axes: Axes, record: Mapping[str, Any]) -> None:
    ks, value, low, high = (
        [one[name] for one in record["pass_at"]] for name in ("k", "value", "low", "high")
    )
    axes.fill_between(ks, low, high, color=BASE, alpha=0.18, lw=0)
    axes.plot(ks, value, color=BASE, marker=".", ms=5)
    axes.axvline(record["k"], color=MUTED, lw=0.8, ls=":")
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("k, tries")
    axes.set_ylabel("pass@k, ± 95 %")
    axes.set_title("What is solved in k tries", fontsize=10)
    _plain(axes)


def _curve(axes: Axes, record: Mapping[str, Any]) -> None:
    axes.set_title("Would a pass@k step raise pass@1?", fontsize=10)
    curve = record["curve"]
    if not curve:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no signal", ha="center", color=MUTED, transform=axes.transAxes)
        return
    ks, z = np.array([one["k"] for one in curve]), np.array([one["z"] for one in curve])
    axes.axhspan(-Z95, Z95, color=MUTED, alpha=0.12, lw=0)
    axes.axhline(0, color=MUTED, lw=0.8)
    axes.bar(ks, z, color=[BAD if value < 0 else GOOD for value in z], width=0.7)
    axes.axvline(record["k"], color=BASE, lw=1, ls=":")
    axes.set_xlabel("k of the objective")
    axes.set_ylabel("z of ⟨∇J_k, ∇J_1⟩")
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
