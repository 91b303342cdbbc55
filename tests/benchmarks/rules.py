"""Alarm rules side by side, replayed on the probes of one run: all see the same rollouts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from passk_guard import Probe
from passk_guard.detection.cusum import AlignmentCusum, cusum_threshold
from passk_guard.detection.episodes import ConflictDetector
from passk_guard.detection.level import level_threshold

Rule = Callable[[Sequence[Probe]], list[int]]


def guard(history: Sequence[Probe], false_alarms: float = 1e-3) -> list[int]:
    """Both alarms, sharing the chance."""
    detector = ConflictDetector(false_alarms, 0.01)
    return [p.step for p in history if detector.update(p.update_alignment, p.track)[0]]


def alignment_only(history: Sequence[Probe], false_alarms: float = 1e-3) -> list[int]:
    cusum, steps, open_ = AlignmentCusum(cusum_threshold(false_alarms)), [], False
    for probe in history:
        value = cusum.update(probe.update_alignment)
        if value > cusum.threshold and not open_:
            steps.append(probe.step)
        open_ = value > 0 and (open_ or value > cusum.threshold)
    return steps


def track_only(history: Sequence[Probe], false_alarms: float = 1e-3) -> list[int]:
    z = level_threshold(false_alarms)
    return _begins(history, lambda p: p.track.change + z * p.track.change_se < -0.01)


def naive_cosine_below_zero(history: Sequence[Probe]) -> list[int]:
    """The cosine of the two averaged gradients, diagonal included, is negative."""

    def negative(probe: Probe) -> bool:
        if probe.gramian is None:
            return False
        return float((probe.weights[:, None] * probe.gramian).sum()) < 0

    return _begins(history, negative)


def naive_cosine_same_chance(history: Sequence[Probe], false_alarms: float = 1e-3) -> list[int]:
    """The naive inner product under the guard's own CUSUM: the same false-alarm chance."""
    naive = []
    for probe in history:
        found = probe.update_alignment
        if found is not None and probe.gramian is not None:
            inner = float((probe.weights[:, None] * probe.gramian).mean())
            found = dataclasses.replace(found, inner=inner)
        naive.append(dataclasses.replace(probe, update_alignment=found))
    return alignment_only(naive, false_alarms)


def sampled_level(history: Sequence[Probe], false_alarms: float | None = 1e-3) -> list[int]:
    """Sampled pass@1 is 2 points below the sampled reference, at a false-alarm rate or bare."""
    first = history[0]
    z = 0.0 if false_alarms is None else level_threshold(false_alarms)

    def fallen(probe: Probe) -> bool:
        rates = np.array(probe.correct) / (probe.rollouts / probe.prompts)
        variance = rates.var(ddof=1) / len(rates)
        reference = ((first.track.high - first.track.low) / 3.92) ** 2
        change = probe.pass_at_1 - first.track.reference
        return change + z * math.sqrt(variance + reference) < -0.02

    return _begins(history[1:], fallen)


def _begins(history: Sequence[Probe], holds: Callable[[Probe], bool]) -> list[int]:
    steps, before = [], False
    for probe in history:
        now = holds(probe)
        if now and not before:
            steps.append(probe.step)
        before = now
    return steps


RULES: dict[str, Rule] = {
    "guard": guard,
    "alignment only": alignment_only,
    "track only": track_only,
    "sampled -2 points, 1e-3": sampled_level,
    "sampled -2 points, bare": lambda history: sampled_level(history, None),
    "naive cosine < 0": naive_cosine_below_zero,
    "naive cosine, 1e-3": naive_cosine_same_chance,
    "guard at 1e-2": lambda history: guard(history, 1e-2),
}
