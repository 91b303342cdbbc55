"""Pictures of a probe, with matplotlib (extra ``tensorboard``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from passk_guard.probe import Probe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["alignment_curve_figure", "comparison_figure", "run_figure"]

_GOOD, _BAD, _MUTED, _BASE = "#1b7837", "#b2182b", "#666666", "#2166ac"


def alignment_curve_figure(probe: Probe) -> Figure:
    """``⟨∇J_k, ∇J_1⟩`` in standard errors, over k: negative where pass@k training would hurt."""
    figure = Figure(figsize=(4.8, 3.2), dpi=140, layout="constrained")
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
    """A run in three panels: what is solved, what pass@1 has lost, where the update points."""
    figure = Figure(figsize=(8, 7.5), dpi=110, layout="constrained")
    panels = figure.subplots(3, 1, sharex=True, height_ratios=[3, 2, 2])
    levels, change, cosine = panels
    _draw_levels(levels, history)
    _draw_change(change, history)
    _draw_cosine(cosine, history)
    for probe in history:
        if probe.alarm is not None:
            for axes in panels:
                axes.axvline(probe.step, color=_BAD, lw=1.2)
            label = "alarm: " + " + ".join(probe.alarm.fired)
            at = (probe.step, 0.5)
            offset = {"xytext": (4, 0), "textcoords": "offset points"}
            levels.annotate(label, at, xycoords=("data", "axes fraction"), color=_BAD, **offset)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    levels.set_title(title)
    cosine.set_xlabel("optimizer step")
    return figure


def comparison_figure(runs: Mapping[str, Sequence[Probe]], title: str = "") -> Figure:
    """Runs side by side: filtered pass@1 with its interval, sampled pass@k, and λ."""
    figure = Figure(figsize=(8, 7.5), dpi=110, layout="constrained")
    ones, eights, weights = figure.subplots(3, 1, sharex=True, height_ratios=[4, 2, 1.5])
    start = next(iter(runs.values()))[-1].track.reference
    ones.axhline(start, color=_MUTED, lw=0.8, ls=":")
    for color, (name, history) in zip((_BAD, _GOOD, _BASE), runs.items(), strict=False):
        steps = [p.step for p in history]
        _band(ones, steps, [(p.track.low, p.track.high) for p in history], color)
        ones.plot(steps, [p.track.pass_at_1 for p in history], color=color, label=name)
        eights.plot(steps, [p.pass_at_k for p in history], color=color)
        weights.step(steps, [p.pass1_weight for p in history], color=color, where="post")
        for probe in history:
            if probe.alarm is not None:
                at = (probe.step, probe.track.pass_at_1)
                ones.plot(*at, "v", color=color, ms=9)
                ones.annotate("alarm", at, (6, 6), textcoords="offset points", color=color)
    ones.set_ylabel("pass@1 ± 95 %\n(dotted: at the start)")
    eights.set_ylabel("pass@k, sampled")
    weights.set_ylabel("λ, share\nof pass@1")
    weights.set_ylim(-0.05, 1.05)
    weights.set_xlabel("optimizer step")
    ones.legend(frameon=False, loc="lower left")
    ones.set_title(title)
    for axes in (ones, eights, weights):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _band(axes: Axes, steps: list[int], band: list[tuple[float, float]], color: str) -> None:
    low, high = [b[0] for b in band], [b[1] for b in band]
    axes.fill_between(steps, low, high, color=color, alpha=0.18, lw=0)


def _draw_levels(axes: Axes, history: Sequence[Probe]) -> None:
    steps = [p.step for p in history]
    _band(axes, steps, [(p.track.low, p.track.high) for p in history], _BASE)
    axes.plot(steps, [p.pass_at_k for p in history], color=_GOOD, label=f"pass@{history[-1].k}")
    axes.plot(steps, [p.track.pass_at_1 for p in history], color=_BASE, label="pass@1, filtered")
    axes.plot(steps, [p.pass_at_1 for p in history], ".", color=_BASE, label="pass@1, sampled")
    axes.set_ylabel("solved")
    axes.legend(frameon=False, fontsize=9, loc="center right")


def _draw_change(axes: Axes, history: Sequence[Probe]) -> None:
    steps = [p.step for p in history]
    band = [
        (t.change - 1.96 * t.change_se, t.change + 1.96 * t.change_se)
        for t in (p.track for p in history)
    ]
    axes.axhline(0, color=_MUTED, lw=0.8)
    _band(axes, steps, band, _BASE)
    axes.plot(steps, [p.track.change for p in history], color=_BASE)
    axes.set_ylabel("change of pass@1")


def _draw_cosine(axes: Axes, history: Sequence[Probe]) -> None:
    shown = [(p.step, p.cosine) for p in history if p.cosine is not None]
    steps = [step for step, _ in shown]
    axes.axhline(0, color=_MUTED, lw=0.8)
    _band(axes, steps, [(c.low, c.high) for _, c in shown], _MUTED)
    axes.plot(steps, [c.value for _, c in shown], color=_MUTED)
    axes.set_ylim(-1.05, 1.05)
    axes.set_ylabel("cosine of update\nwith ∇pass@1")
