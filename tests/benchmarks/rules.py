"""Alarm rules side by side, replayed on the probes of one run: all see the same rollouts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from passk_guard import Probe
from passk_guard.detection.detector import DetectorSettings, LookEvidence
from passk_guard.detection.level import LevelDetector, level_threshold

Alarms = list[tuple[int, str]]
"""Step and cause of each; the cause is empty where a rule names none."""

FALSE_ALARMS, TOLERANCE = 1e-3, 0.01


@dataclass(frozen=True)
class PlainLook:
    """A plain evaluation: rollouts of the same prompts at every look, the first one included.

    Attributes:
        step: optimizer steps done.
        correct: ``(m,)`` right rollouts.
        n: rollouts of each.
    """

    step: int
    correct: np.ndarray
    n: int


def plain_change(first: PlainLook, now: PlainLook, pool: int | None = None) -> tuple[float, float]:
    """Mean paired difference and its error: on these prompts, or in a pool of so many."""
    d = now.correct / now.n - first.correct / first.n
    noise = sum(
        float((one.correct * (one.n - one.correct)).mean()) / (one.n**2 * (one.n - 1))
        for one in (first, now)
    )
    variance = noise / len(d)
    if pool is not None:
        variance += max(float(d.var(ddof=1)) - noise, 0.0) * (1 - len(d) / pool) / len(d)
    return float(d.mean()), math.sqrt(variance)


def plain_alarms(looks: Sequence[PlainLook], pool: int) -> Alarms:
    """The level alarm on a plain evaluation, with the whole chance."""
    z, holds = level_threshold(FALSE_ALARMS), []
    for look in looks[1:]:
        change, se = plain_change(looks[0], look, pool)
        holds.append(change + z * se < -TOLERANCE)
    return _begins([look.step for look in looks[1:]], holds)


def today(history: Sequence[Probe]) -> Alarms:
    """The guard as shipped, read off the run."""
    return [(p.step, str(p.alarm.cause)) for p in history if p.alarm]


def level_alone(history: Sequence[Probe]) -> Alarms:
    """The level alarm, with the whole chance."""
    level, held = LevelDetector(DetectorSettings(FALSE_ALARMS, TOLERANCE)), False
    holds = []
    for p in history:
        opened = level.update(LookEvidence(None, p.track, p.groups))[None]
        holds.append(held := held if opened is None else opened)
    return _begins([p.step for p in history], holds)


def naive_cosine(history: Sequence[Probe]) -> Alarms:
    """The cosine of the two averaged gradients, diagonal included, is negative."""
    return _begins(
        [p.step for p in history],
        [p.gramian is not None and (p.weights[:, None] * p.gramian).sum() < 0 for p in history],
    )


def sampled(history: Sequence[Probe]) -> Alarms:
    """Sampled pass@1 is 2 points below the sampled reference."""
    first = history[0].pass_at_1
    return _begins([p.step for p in history], [p.pass_at_1 < first - 0.02 for p in history])


def _begins(steps: Sequence[int], holds: Sequence[bool]) -> Alarms:
    looks = zip(steps, holds, [False, *holds[:-1]], strict=True)
    return [(step, "") for step, now, was in looks if now and not was]


RULES: dict[str, Callable[[Sequence[Probe]], Alarms]] = {
    "today": today,
    "level alone": level_alone,
    "sampled -2 points": sampled,
    "naive cosine < 0": naive_cosine,
}
PLAIN = "plain evaluation"
