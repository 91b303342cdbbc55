"""The field study's table, from the records of its runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from field.runs import K
from field.sizes import Size

from passk_guard.passk import pass_at_k

NAMES = {"watched": "pass@8", "guarded": "pass@8, guarded", "grpo": "GRPO"}


@dataclass(frozen=True)
class Outcome:
    """What became of one training, measured on the test set; shares in [0, 1].

    Attributes:
        pass8: at the end.
        change, change_se: of pass@1, paired by prompt.
        lowest: change of pass@1 at its lowest reading, from the start (0) to the last one.
        frozen: the same of a policy that stands still, read as often with as many samples.
        alarm: step of the first alarm; ``None`` where there was none.
        lost: change of pass@1 when it came, by the readings before and after.
        right: change of pass@1 on rightly labelled prompts alone.
    """

    pass8: float
    change: float
    change_se: float
    lowest: float
    frozen: float
    alarm: int | None
    lost: float | None
    right: float


def changes(start: Mapping[str, Any], run: Mapping[str, Any], size: Size) -> dict[int, float]:
    """Change of pass@1 since the start, by step."""
    first, course = np.mean(start["counts"]) / size.many, {0: 0.0}
    for step, counts in sorted((int(step), counts) for step, counts in run["counts"].items()):
        n = size.many if step == size.steps else size.few
        course[step] = float(np.mean(counts) / n - first)
    return course


def first_alarm(run: Mapping[str, Any]) -> int | None:
    """Its step."""
    return next((look["step"] for look in run["looks"] if look["alarm"]), None)


def outcome(start: Mapping[str, Any], run: Mapping[str, Any], size: Size) -> Outcome:
    """Raises: ValueError: the run began from other weights, as of another machine's warm-up."""
    if run["weights_at_start"] != start["weights_at_start"]:
        which = f"{run['task']}, seed {run['seed']}"
        raise ValueError(f"{which}: make start and training on one machine")
    course, first = changes(start, run, size), np.array(start["counts"])
    last = np.array(run["counts"][str(size.steps)])
    paired = (last - first) / size.many
    right = np.array(start["wrong"]) == 0
    alarm, lost = first_alarm(run), None
    if alarm is not None:
        lost = float(np.interp(alarm, list(course), list(course.values())))
    return Outcome(
        pass8=mean_pass_at_8(last, size.many),
        change=float(paired.mean()),
        change_se=float(paired.std(ddof=1) / math.sqrt(len(paired))),
        lowest=min(course.values()),
        frozen=min(0.0, min(start["frozen"]) - float(first.mean() / size.many)),
        alarm=alarm,
        lost=lost,
        right=float(paired[right].mean()),
    )


def mean_pass_at_8(counts: Any, n: int) -> float:
    return float(np.mean(pass_at_k(np.array(counts), n, K)))


def field_table(records: Sequence[Mapping[str, Any]], size: Size) -> str:
    """Markdown: task x training, seeds side by side."""
    said = [
        "| task | training | pass@1, points | most lost (by a frozen policy) | pass@8 "
        "| first alarm (points by then) | guarding |",
        "|---|---|---|---|---|---|---|",
    ]
    by_run = {(r["task"], r["seed"], r["arm"]): r for r in records}
    for name in size.tasks:
        starts = {seed: r for (task, seed, a), r in by_run.items() if (task, a) == (name, "start")}
        if not starts:
            continue
        pass1 = [float(np.mean(r["counts"])) / size.many for _, r in sorted(starts.items())]
        pass8 = [mean_pass_at_8(r["counts"], size.many) for _, r in sorted(starts.items())]
        said.append(f"| {name} | start | {_each(pass1)} | | {_each(pass8)} | | |")
        for arm in NAMES:
            runs = [
                (r, outcome(starts[seed], r, size))
                for (task, seed, a), r in sorted(by_run.items())
                if (task, a) == (name, arm) and seed in starts
            ]
            if runs:
                said.append(_row(arm, runs))
    return "\n".join(said)


def _row(arm: str, runs: Sequence[tuple[Mapping[str, Any], Outcome]]) -> str:
    found = [one for _, one in runs]
    alarms = ", ".join(
        "none" if o.alarm is None else f"{o.alarm} ({100 * (o.lost or 0):+.1f})" for o in found
    )
    guarding = np.mean([r["guarding"] / r["trained_on"] for r, _ in runs])
    change = ", ".join(f"{100 * o.change:+.1f} ± {100 * o.change_se:.1f}" for o in found)
    return (
        f"| | {NAMES[arm]} | {change} "
        f"| {', '.join(f'{abs(100 * o.lowest):.1f} ({abs(100 * o.frozen):.1f})' for o in found)} "
        f"| {_each([o.pass8 for o in found])} | {alarms} | {100 * guarding:.0f} % |"
    )


def _each(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3f}".lstrip("0") for value in values)
