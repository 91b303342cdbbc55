"""One picture per task: how the start reads, and where each training took pass@1."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from field.outcomes import changes, first_alarm
from field.runs import K
from field.sizes import Size

NAMES = {"watched": "pass@8", "guarded": "pass@8, guarded", "grpo": "GRPO"}
COLOURS = {"watched": "#b2182b", "guarded": "#1b7837", "grpo": "#4d4d4d"}
Records = Mapping[tuple[int, str], Mapping[str, Any]]  # by seed and arm


def draw(name: str, records: Records, size: Size, path: Path) -> None:
    """Save it.

    Args:
        name: of the task.
        records: of its runs.
        size: of them.
        path: a PNG.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.2), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[2, 3])
    _curves(left, records)
    _courses(right, records, size)
    for axes in (left, right):
        axes.axhline(0, color="#999999", lw=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    figure.suptitle(name[0].upper() + name[1:], fontsize=11, x=0.01, ha="left")
    figure.savefig(path)


def _curves(axes: Any, records: Records) -> None:
    """What a step on pass@k would do to pass@1 at the start, in units of a pass@1 step."""
    for (seed, arm), record in sorted(records.items()):
        if arm != "start" or not record["probe"]["curve"]:
            continue
        curve = record["probe"]["curve"]
        unit = abs(curve[0]["inner"]) or 1.0
        k = [one["k"] for one in curve]
        axes.plot(k, [one["inner"] / unit for one in curve], color="#2166ac", lw=1.2)
        at = curve[K - 1]
        axes.errorbar(
            K + 0.25 * (seed - 1),  # beside each other
            at["inner"] / unit,
            [[(at["inner"] - at["low"]) / unit], [(at["high"] - at["inner"]) / unit]],
            color="#2166ac",
            lw=0.8,
            capsize=2,
        )
    axes.set_title("start: a pass@k step's effect on pass@1", fontsize=9)
    axes.set_xlabel("k", fontsize=8)


def _courses(axes: Any, records: Records, size: Size) -> None:
    labelled = set()
    for (seed, arm), record in sorted(records.items()):
        start = records.get((seed, "start"))
        if arm == "start" or start is None:
            continue
        course = changes(start, record, size)
        steps, points = list(course), [100 * change for change in course.values()]
        label = None if arm in labelled else NAMES[arm]
        labelled.add(arm)
        wide = 3.5 if arm == "guarded" else 1.2  # without an alarm it lies under the watched one
        axes.plot(steps, points, "-o", color=COLOURS[arm], lw=wide, ms=2.5, label=label)
        if (alarm := first_alarm(record)) is not None:
            at = np.interp(alarm, steps, points)
            axes.plot(alarm, at, "v", color=COLOURS[arm], ms=8, mec="white", mew=0.8)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -3.0), max(high, 3.0))  # a point is not to look like much
    axes.set_title("pass@1 on the test set, points; ▼ first alarm", fontsize=9)
    axes.set_xlabel("optimizer steps", fontsize=8)
    if labelled:
        axes.legend(fontsize=7, frameon=False)
