"""Whether the guard's figure of what became of pass@1 is the truth's, look by look."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from field.sizes import Size
from field.table import first_alarm


def agreement_table(records: Sequence[Mapping[str, Any]], size: Size) -> str:
    """Markdown, a row for each task, over all trainings and the looks at which both are known."""
    said = [
        "| task | looks | guard less truth, points: mean, rms | 95 % interval holds the truth "
        "| error of the difference, points |",
        "|---|---|---|---|---|",
    ]
    starts = {(r["task"], r["seed"]): r for r in records if r["arm"] == "start"}
    for name in size.tasks:
        found = [
            one
            for r in records
            if r["task"] == name and r["arm"] != "start" and not as_good_as_watched(r)
            for one in differences(starts[name, r["seed"]], r, size)
        ]
        if found:
            said.append(_row(name, np.array(found)))
    return "\n".join(said)


def as_good_as_watched(run: Mapping[str, Any]) -> bool:
    """Whether it is a guarded run in which nothing was done: its figures are those of another."""
    return run["arm"] == "guarded" and first_alarm(run) is None


def differences(
    start: Mapping[str, Any], run: Mapping[str, Any], size: Size
) -> list[tuple[float, float]]:
    """``(difference, error)`` of the change since the start, at each look; shares in [0, 1].

    The guard's prompts and the test set's are different ones, so three errors count: the guard's,
    which is about its pool, and what either set of prompts may differ from all.
    """
    looks = {look["step"]: look for look in run["looks"]}
    first, found = np.array(start["counts"]) / size.many, []
    for at, counts in run["counts"].items():
        step = int(at)
        if step in looks:
            paired = np.array(counts) / (size.many if step == size.steps else size.few) - first
            error = float(paired.std(ddof=1)) * math.sqrt(1 / len(paired) + 1 / size.pool)
            look = looks[step]
            found.append(
                (look["change"] - float(paired.mean()), math.hypot(look["change_se"], error))
            )
    return found


def _row(name: str, found: np.ndarray) -> str:
    difference, error = found.T
    inside = np.mean(np.abs(difference) < 1.96 * error)
    return (
        f"| {name} | {len(found)} | {100 * difference.mean():+.1f}, "
        f"{100 * math.sqrt(np.mean(difference**2)):.1f} | {100 * inside:.0f} % "
        f"| {100 * error.mean():.1f} |"
    )
