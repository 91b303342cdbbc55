"""Pictures of one probe, with matplotlib (extra ``tensorboard``): who pulls against whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from passk_guard.reporting.snapshot import Snapshot
from passk_guard.statistics.interval import Z95

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GOOD, BAD, MUTED, BASE = "#1b7837", "#b2182b", "#666666", "#2166ac"
"""Raises pass@1, lowers it, what is neither, the guard's own."""


def alignment_curve_figure(shown: Snapshot) -> Figure:
    """``⟨∇J_k, ∇J_1⟩`` in standard errors, over k: negative where pass@k training would hurt."""
    figure = Figure(figsize=(4.8, 3.2), dpi=140, layout="constrained")
    axes = figure.subplots()
    ks, z = shown.curve[:, 0], shown.curve[:, 1]
    axes.axhspan(-Z95, Z95, color=MUTED, alpha=0.12, lw=0)
    axes.axhline(0, color=MUTED, lw=0.8)
    axes.bar(ks, z, color=[BAD if value < 0 else GOOD for value in z], width=0.7)
    axes.axvline(shown.k, color=BASE, lw=1, ls=":")
    axes.annotate(
        f"k = {shown.k:g}",
        (shown.k, 1),
        xycoords=("data", "axes fraction"),
        xytext=(3, -10),
        textcoords="offset points",
        color=BASE,
    )
    axes.set_xlabel("k of the objective")
    axes.set_ylabel("z of ⟨∇J_k, ∇J_1⟩")
    axes.set_title(f"Would a pass@k step raise pass@1?{_at(shown)}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def interference_figure(shown: Snapshot) -> Figure:
    """Cosines of all pairs of per-prompt pass@1 gradients, ``K_ij / √(K_ii K_jj)``.

    Prompts stand in the order of their pass rate. Red: what helps the one harms the other. The
    diagonal, 1 by definition, is blank. Colours end at the 96th percentile of absolute cosines, at
    least .1.
    """
    figure = Figure(figsize=(4.8, 4.2), dpi=140, layout="constrained")
    axes = figure.subplots()
    axes.set_title(f"Prompts that pull against each other{_at(shown)}", fontsize=10)
    count = len(shown.rows)
    if count < 2:
        return _without_signal(figure, axes)
    apart = ~np.eye(count, dtype=bool)
    limit = max(0.1, float(np.quantile(np.abs(shown.cosines[apart]), 0.96)))
    cosines = np.where(apart, shown.cosines, np.nan)
    axes.set_facecolor("white")
    image = axes.imshow(cosines, cmap="RdBu", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.spines[:].set_visible(False)
    at, labels = _rate_ticks(shown.pass_rates)
    axes.set_xticks(at, labels, fontsize=8)
    axes.set_yticks(at, labels, fontsize=8)
    axes.set_xlabel("pass rate of the one prompt: hard to easy")
    axes.set_ylabel("pass rate of the other")
    bar = figure.colorbar(image, ax=axes, shrink=0.85, pad=0.02, extend="both")
    bar.set_label("cosine of their gradients (red: they interfere)", fontsize=9)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8)
    return figure


def _rate_ticks(rates: np.ndarray, most: int = 6) -> tuple[list[int], list[str]]:
    """Places along sorted prompts, evenly spread, and the pass rates there."""
    at = np.unique(np.linspace(0, len(rates) - 1, most).round().astype(int))
    return at.tolist(), [f"{rates[i]:.2f}".replace("0.", ".", 1) for i in at]


def agreement_figure(shown: Snapshot) -> Figure:
    """Each prompt's agreement ``⟨g, ∇J_1⟩`` with pass@1, over its pass rate, and its weight.

    The geometry of a conflict: the update works against pass@1 where it weighs most what lies
    below zero. The line joins the mean weights in force of prompts of one pass rate.
    """
    figure = Figure(figsize=(4.8, 3.4), dpi=140, layout="constrained")
    axes = figure.subplots()
    axes.set_title(f"What the update weighs, and what it does{_at(shown)}", fontsize=10)
    rates, agreement, weights = shown.pass_rates, shown.agreement, shown.weights
    if not len(rates):
        return _without_signal(figure, axes)
    over = axes.twinx()
    levels = np.unique(rates)
    means = [weights[rates == level].mean() for level in levels]
    over.fill_between(levels, means, color=BASE, alpha=0.10, lw=0)
    over.plot(levels, means, color=BASE, lw=1.5, marker=".", ms=5)
    over.set_ylim(0, 2.0 * max(*means, 1.0))
    over.set_ylabel("weight / mean", color=BASE)
    over.tick_params(axis="y", colors=BASE, labelsize=8)
    axes.set_zorder(over.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.axhline(0, color=MUTED, lw=0.8)
    colors = [BAD if value < 0 else GOOD for value in agreement]
    axes.scatter(rates, agreement, c=colors, s=18, alpha=0.75, lw=0)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("pass rate of the prompt: hard to easy")
    axes.set_ylabel("agreement with pass@1\n(red: solving it lowers pass@1)")
    axes.tick_params(labelsize=8)
    for side in (axes, over):
        side.spines["top"].set_visible(False)
    return figure


def _at(shown: Snapshot) -> str:
    return "" if shown.step is None else f" (step {shown.step})"


def _without_signal(figure: Figure, axes: Axes) -> Figure:
    axes.set_axis_off()
    text = "no signal: too few prompts were\nsolved sometimes but not always"
    axes.text(0.5, 0.5, text, ha="center", va="center", color=MUTED, transform=axes.transAxes)
    return figure
