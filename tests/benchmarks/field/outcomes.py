"""What became of a training of the field study, and how far the guard's figures were off."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from field.sizes import Size

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of one training, measured on the test set; shares in [0, 1].

    Attributes:
        change, change_se: of pass@1, paired by prompt.
        lowest: change of pass@1 at its lowest reading, from the start (0) to the last one.
        alarm: step of the first alarm; ``None`` where there was none.
        lost: change of pass@1 when it came, by the readings before and after.
    """

    change: float
    change_se: float
    lowest: float
    alarm: int | None
    lost: float | None


def changes(start: Record, run: Record, size: Size) -> dict[int, float]:
    """Change of pass@1 since the start, by step."""
    first, course = np.mean(start["counts"]) / size.many, {0: 0.0}
    for step, counts in sorted((int(step), counts) for step, counts in run["counts"].items()):
        n = size.many if step == size.steps else size.few
        course[step] = float(np.mean(counts) / n - first)
    return course


def first_alarm(run: Record) -> int | None:
    """Its step."""
    return next((look["step"] for look in run["looks"] if look["alarm"]), None)


def outcome(start: Record, run: Record, size: Size) -> Outcome:
    """Raises: ValueError: the run began from other weights, as of another machine's warm-up."""
    if run["weights_at_start"] != start["weights_at_start"]:
        which = f"{run['task']}, seed {run['seed']}"
        raise ValueError(f"{which}: make start and training on one machine")
    course = changes(start, run, size)
    paired = (np.array(run["counts"][str(size.steps)]) - np.array(start["counts"])) / size.many
    alarm, lost = first_alarm(run), None
    if alarm is not None:
        lost = float(np.interp(alarm, list(course), list(course.values())))
    return Outcome(
        change=float(paired.mean()),
        change_se=float(paired.std(ddof=1) / math.sqrt(len(paired))),
        lowest=min(course.values()),
        alarm=alarm,
        lost=lost,
    )


def same_as_watched(run: Record) -> bool:
    """Whether it is a guarded run in which nothing was done: its figures are those of another."""
    return run["arm"] == "guarded" and first_alarm(run) is None


def differences(start: Record, run: Record, size: Size) -> list[tuple[float, float]]:
    """``(difference, error)`` of the guard's change from the truth's, at each look; shares.

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
