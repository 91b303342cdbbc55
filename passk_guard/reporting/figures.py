"""Pictures of a probe, with matplotlib (extra ``tensorboard``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from passk_guard.probe import Probe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "agreement_figure",
    "alignment_curve_figure",
    "comparison_figure",
    "interference_figure",
    "run_figure",
]

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


def interference_figure(probe: Probe) -> Figure:
    """Cosines of all pairs of per-prompt pass@1 gradients, ``K_ij / √(K_ii K_jj)``.

    Prompts stand in the order of their pass rate; those solved never or always have no gradient
    and are left out. Red: what helps the one harms the other. The diagonal, 1 by definition, is
    blank. Colours end at the 96th percentile of absolute cosines, at least .1.
    """
    figure = Figure(figsize=(4.8, 4.2), dpi=140, layout="constrained")
    axes = figure.subplots()
    order, cosines = _cosines(probe)
    axes.set_title(f"Prompts that pull against each other (step {probe.step})", fontsize=10)
    if len(order) < 2:
        return _without_signal(figure, axes)
    apart = ~np.eye(len(order), dtype=bool)
    limit = max(0.1, float(np.quantile(np.abs(cosines[apart]), 0.96)))
    shown = np.where(apart, cosines, np.nan)
    axes.set_facecolor("white")
    image = axes.imshow(shown, cmap="RdBu", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.spines[:].set_visible(False)
    at, labels = _rate_ticks(probe.pass_rates[order])
    axes.set_xticks(at, labels, fontsize=8)
    axes.set_yticks(at, labels, fontsize=8)
    axes.set_xlabel("pass rate of the one prompt: hard to easy")
    axes.set_ylabel("pass rate of the other")
    bar = figure.colorbar(image, ax=axes, shrink=0.85, pad=0.02, extend="both")
    bar.set_label("cosine of their gradients (red: they interfere)", fontsize=9)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8)
    return figure


def _cosines(probe: Probe) -> tuple[np.ndarray, np.ndarray]:
    """Prompts that have a gradient, hardest first, ``(s,)``; their cosines, ``(s, s)``."""
    if probe.gramian is None:
        return np.zeros(0, dtype=int), np.zeros((0, 0))
    norms = np.sqrt(np.maximum(np.diag(probe.gramian), 0).astype(float))
    order = np.argsort(probe.pass_rates, kind="stable")
    order = order[norms[order] > 0]
    scaled = np.asarray(probe.gramian, dtype=float)[np.ix_(order, order)]
    return order, scaled / np.outer(norms[order], norms[order])


def _rate_ticks(rates: np.ndarray, most: int = 6) -> tuple[list[int], list[str]]:
    """Places along sorted prompts, evenly spread, and the pass rates there."""
    at = np.unique(np.linspace(0, len(rates) - 1, most).round().astype(int))
    return at.tolist(), [f"{rates[i]:.2f}".replace("0.", ".", 1) for i in at]


def agreement_figure(probe: Probe) -> Figure:
    """Each prompt's agreement ``⟨g, ∇J_1⟩`` with pass@1, over its pass rate, and its weight.

    The geometry of a conflict: the update works against pass@1 where it weighs most what lies
    below zero. Agreement is in units of the root mean square over prompts; the line joins the mean
    weights in force of prompts of one pass rate, as multiples of the mean over prompts.
    """
    figure = Figure(figsize=(4.8, 3.4), dpi=140, layout="constrained")
    axes = figure.subplots()
    axes.set_title(f"What the update weighs, and what it does (step {probe.step})", fontsize=10)
    if probe.update_alignment is None:
        return _without_signal(figure, axes)
    rates, agreement = probe.pass_rates, probe.update_alignment.agreement
    alive = np.diag(np.asarray(probe.gramian)) > 0
    rates, agreement, weights = rates[alive], agreement[alive], probe.weights[alive]
    agreement = agreement / (np.sqrt(np.mean(agreement**2)) or 1.0)
    weights = weights / (weights.mean() or 1.0)
    over = axes.twinx()
    levels = np.unique(rates)
    means = [weights[rates == level].mean() for level in levels]
    over.fill_between(levels, means, color=_BASE, alpha=0.10, lw=0)
    over.plot(levels, means, color=_BASE, lw=1.5, marker=".", ms=5)
    over.set_ylim(0, 2.0 * max(*means, 1.0))
    over.set_ylabel("weight / mean", color=_BASE)
    over.tick_params(axis="y", colors=_BASE, labelsize=8)
    axes.set_zorder(over.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.axhline(0, color=_MUTED, lw=0.8)
    colors = [_BAD if value < 0 else _GOOD for value in agreement]
    axes.scatter(rates, agreement, c=colors, s=18, alpha=0.75, lw=0)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("pass rate of the prompt: hard to easy")
    axes.set_ylabel("agreement with pass@1\n(red: solving it lowers pass@1)")
    axes.tick_params(labelsize=8)
    for side in (axes, over):
        side.spines["top"].set_visible(False)
    return figure


def _without_signal(figure: Figure, axes: Axes) -> Figure:
    axes.set_axis_off()
    text = "no signal: too few prompts were\nsolved sometimes but not always"
    axes.text(0.5, 0.5, text, ha="center", va="center", color=_MUTED, transform=axes.transAxes)
    return figure
