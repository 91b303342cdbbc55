"""Pictures of a probe, with matplotlib (extra ``tensorboard``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from passk_guard.probe import Probe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["alignment_curve_figure", "run_figure"]

_GOOD, _BAD, _MUTED, _BASE = "#1b7837", "#b2182b", "#666666", "#2166ac"


def alignment_curve_figure(probe: Probe) -> Figure:
    """``⟨∇J_k, ∇J_1⟩`` over k with 95 % intervals, each scaled by its value at k = 1's size."""
    figure = Figure(figsize=(6, 3.6), dpi=110, layout="constrained")
    axes = figure.subplots()
    _draw_curve(axes, probe)
    return figure


def _draw_curve(axes: Axes, probe: Probe) -> None:
    ks = [a.k for a in probe.curve if a.k is not None]
    z = [a.z for a in probe.curve]
    axes.axhspan(-1.96, 1.96, color=_MUTED, alpha=0.12, lw=0)
    axes.axhline(0, color=_MUTED, lw=0.8)
    axes.bar(ks, z, color=[_BAD if value < 0 else _GOOD for value in z], width=0.7)
    axes.axvline(probe.k, color=_BASE, lw=1, ls=":")
    axes.annotate(
        f"k = {probe.k}",
        (probe.k, 1),
        xycoords=("data", "axes fraction"),
        xytext=(3, -10),
        textcoords="offset points",
        color=_BASE,
    )
    axes.set_xlabel("k of the objective")
    axes.set_ylabel("z of ⟨∇J_k, ∇J_1⟩")
    axes.set_title(f"Would a pass@k step raise pass@1? (step {probe.step})", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def run_figure(history: Sequence[Probe], title: str = "") -> Figure:
    """Pass@1 and pass@k with intervals and alarms, above the cosine of the update in force."""
    figure = Figure(figsize=(8, 6), dpi=120, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    steps = [p.step for p in history]
    track = [p.track for p in history]
    above.fill_between(
        steps, [t.low for t in track], [t.high for t in track], color=_BASE, alpha=0.18, lw=0
    )
    above.plot(steps, [t.pass_at_1 for t in track], color=_BASE, label="pass@1, filtered")
    above.plot(
        steps, [p.pass_at_1 for p in history], ".", color=_BASE, ms=4, label="pass@1, sampled"
    )
    k = history[-1].k
    above.plot(steps, [p.pass_at_k for p in history], color=_GOOD, label=f"pass@{k}, sampled")
    if track:
        above.axhline(track[-1].reference, color=_MUTED, lw=0.8, ls="--", label="reference")
    above.set_ylabel("share of prompts solved")
    shown = [p for p in history if p.cosine is not None]
    values = [p.cosine for p in shown if p.cosine is not None]
    at = [p.step for p in shown]
    below.axhline(0, color=_MUTED, lw=0.8)
    below.fill_between(
        at, [c.low for c in values], [c.high for c in values], color=_MUTED, alpha=0.2, lw=0
    )
    below.plot(at, [c.value for c in values], color=_MUTED, label="cosine(update, ∇pass@1)")
    below.set_ylim(-1.05, 1.05)
    below.set_xlabel("optimizer step")
    below.set_ylabel("cosine")
    for probe in history:
        if probe.alarm is not None:
            for axes in (above, below):
                axes.axvline(probe.step, color=_BAD, lw=1.2)
            above.annotate(
                "alarm",
                (probe.step, 1),
                xycoords=("data", "axes fraction"),
                xytext=(3, -11),
                textcoords="offset points",
                color=_BAD,
            )
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="lower left", ncols=4)
    above.set_title(title)
    return figure
