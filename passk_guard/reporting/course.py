"""Pictures of a run's course, with matplotlib, from the lines of its JSONL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from passk_guard.reporting.figures import BAD, BASE, GOOD, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Look = Mapping[str, Any]
"""A probe or re-scoring, see :mod:`passk_guard.reporting.record`."""


def levels_figure(looks: Sequence[Look], k: int | None = None) -> Figure:
    """Filtered pass@1 and pass@k of the last looks, with their intervals."""
    figure, axes = _figure("What is solved of the reference's prompts", looks)
    _band(axes, looks, "pass_at_k", GOOD)
    _line(axes, looks, "pass_at_k", GOOD, label=f"pass@{k or 'k'}, ± over prompts")
    _band(axes, looks, "track", BASE)
    _line(axes, looks, "track", BASE, label="pass@1, filtered")
    steps, sampled = _points(looks, "pass_at_1")
    axes.plot(steps, sampled, ".", color=BASE, ms=4, label="pass@1, this look's rollouts")
    axes.set_ylabel("share solved, ± 95 %")
    axes.legend(frameon=False, fontsize=8)
    return figure


def change_figure(looks: Sequence[Look], tolerance: float | None = None) -> Figure:
    """Change of the pool's pass@1 since the start, and the floor that it is held to."""
    figure, axes = _figure("Change of the pool's pass@1 since the start", looks)
    axes.axhline(0, color=MUTED, lw=0.8)
    if tolerance is not None:
        axes.axhline(-tolerance, color=BAD, lw=0.8, ls=":")
    _band(axes, looks, "change", BASE)
    _line(axes, looks, "change", BASE)
    axes.set_ylabel("pass@1 now less then, ± 95 %")
    return figure


def cosine_figure(looks: Sequence[Look]) -> Figure:
    """Cosine of the update in force with the pass@1 gradient."""
    figure, axes = _figure("Does the update raise pass@1?", looks)
    axes.axhline(0, color=MUTED, lw=0.8)
    _band(axes, looks, "cosine", BASE)
    _line(axes, looks, "cosine", BASE)
    axes.set_ylim(-1.05, 1.05)
    axes.set_ylabel("cosine of update with ∇pass@1")
    return figure


def remedy_figure(looks: Sequence[Look]) -> Figure:
    """λ and k of the objective."""
    figure, axes = _figure("What the guard did", looks)
    steps, weight = _points(looks, "pass1_weight")
    axes.step(steps, weight, color=BASE, where="post", label="λ, share of pass@1")
    axes.set_ylim(-0.05, 1.05)
    axes.set_ylabel("λ", color=BASE)
    over = axes.twinx()
    steps, k = _points(looks, "k")
    over.step(steps, k, color=GOOD, where="post")
    over.set_ylim(0, 1.1 * max([1.0, *k]))
    over.set_ylabel("k of the objective", color=GOOD)
    over.spines["top"].set_visible(False)
    return figure


def comparison_figure(runs: Mapping[str, Sequence[Look]], title: str = "") -> Figure:
    """Runs side by side: filtered pass@1 with its interval, pass@k, and λ."""
    figure = Figure(figsize=(8, 7.5), dpi=110, layout="constrained")
    ones, eights, weights = figure.subplots(3, 1, sharex=True, height_ratios=[4, 2, 1.5])
    named = set()  # runs are often alike up to the first alarm
    for color, (name, looks) in zip((BAD, GOOD, BASE), runs.items(), strict=False):
        if name == next(iter(runs)) and looks:
            ones.axhline(looks[-1]["track"] - looks[-1]["change"], color=MUTED, lw=0.8, ls=":")
        _band(ones, looks, "track", color)
        _line(ones, looks, "track", color, label=name)
        _line(eights, looks, "pass_at_k", color)
        steps, weight = _points(looks, "pass1_weight")
        weights.step(steps, weight, color=color, where="post")
        for look in looks:
            if "fired" in look:
                at = (look["step"], look["track"])
                ones.plot(*at, "v", color=color, ms=9)
                text = f"alarm: {' and '.join(look['fired'])}"
                if (look["step"], text) not in named:
                    named.add((look["step"], text))
                    ones.annotate(text, at, (6, 6), textcoords="offset points", color=color)
    ones.set_ylabel("pass@1 ± 95 %\n(dotted: at the start)")
    eights.set_ylabel("pass@k,\nlast looks")
    weights.set_ylabel("λ, share\nof pass@1")
    weights.set_ylim(-0.05, 1.05)
    weights.set_xlabel("optimizer step")
    ones.legend(frameon=False, loc="lower left")
    ones.set_title(title)
    for axes in (ones, eights, weights):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _figure(title: str, looks: Sequence[Look]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.8, 2.9), dpi=140, layout="constrained")
    axes = figure.subplots()
    for look in looks:
        if "fired" in look:
            axes.axvline(look["step"], color=BAD, lw=1.2)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("optimizer step")
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _points(looks: Sequence[Look], key: str) -> tuple[list[int], list[float]]:
    """Steps and values of the looks that have one; NaN, a gap, where a run started again."""
    steps: list[int] = []
    values: list[float] = []
    for look in looks:
        if look.get(key) is not None:
            if steps and look["step"] < steps[-1]:
                steps.append(look["step"])
                values.append(np.nan)
            steps.append(look["step"])
            values.append(look[key])
    return steps, values


def _line(axes: Axes, looks: Sequence[Look], key: str, color: str, label: str = "") -> None:
    steps, values = _points(looks, key)
    marker = "." if len(steps) == 1 else ""
    axes.plot(steps, values, color=color, marker=marker, label=label or None)


def _band(axes: Axes, looks: Sequence[Look], key: str, color: str) -> None:
    steps, low = _points(looks, f"{key}_low")
    _, high = _points(looks, f"{key}_high")
    axes.fill_between(steps, np.array(low), np.array(high), color=color, alpha=0.18, lw=0)
