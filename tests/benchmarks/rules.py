"""Alarm rules side by side, replayed on the probes of one run: all see the same rollouts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from passk_guard import PassKObjective, Probe
from passk_guard.detection.cusum import cusum_threshold
from passk_guard.detection.detector import DetectorSettings, LookEvidence
from passk_guard.detection.episodes import ConflictDetector
from passk_guard.detection.level import LevelDetector
from passk_guard.statistics.evidence import WeightsInForce
from passk_guard.statistics.kept_batches import KeptBatch, KeptBatches

Alarms = list[tuple[int, str]]
"""Step and cause of each; the cause is empty where a rule names none."""

FALSE_ALARMS, TOLERANCE = 1e-3, 0.01


def today(history: Sequence[Probe]) -> Alarms:
    """The guard as shipped, read off the run."""
    return [(p.step, str(p.alarm.cause)) for p in history if p.alarm]


def without_step_0(history: Sequence[Probe]) -> Alarms:
    """The same without the reference batches' gradients.

    Errors are known from earlier probes alone, so the first inner product does not count.
    """
    detector, kept, alarms = ConflictDetector(FALSE_ALARMS, TOLERANCE), KeptBatches(), []
    for evidence, probe in _evidence(history):
        objective = PassKObjective(int(probe.k))
        objective.pass1_weight = probe.pass1_weight
        weigh = WeightsInForce(int(probe.k), objective, "update")
        evidence = replace(evidence, scale=kept.scale(weigh, probe.prompts))
        if probe.gramian is not None and probe.update_alignment is not None:
            counts = np.array(probe.correct), np.array(probe.scored)
            kept = kept.plus(KeptBatch(probe.gramian, *counts, np.full(probe.prompts, np.nan)))
        if detector.update(evidence, kept.cosine(weigh))[0]:
            alarms.append((probe.step, str(detector.cause)))
    return alarms


class _Before:
    """The leading alarm of the last release: a CUSUM of the inner product alone.

    ``x = clip(U_t / s, ±3)``, s² an exponential mean of past jackknife variances, the first by its
    own. It closes at 0.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold, self._value, self._variance = threshold, 0.0, 0.0

    def __call__(self, evidence: LookEvidence) -> bool | None:
        found = evidence.update
        if found is not None and found.jackknife_se > 0:
            variance = found.jackknife_se**2
            past = self._variance or variance
            x = max(-3.0, min(3.0, found.inner / math.sqrt(past)))
            self._value = min(max(0.0, self._value - x - 0.5), self._threshold + 3.0)
            self._variance = past + 0.15 * (variance - past)
        return True if self._value > self._threshold else False if self._value == 0 else None


def before(history: Sequence[Probe]) -> Alarms:
    """The last release: that CUSUM and the level alarm, which share the chance."""
    share = FALSE_ALARMS / 2
    leading, level = _Before(cusum_threshold(share)), _level(share)
    active: set[str] = set()
    raised: set[str] = set()
    alarms = []
    for evidence, probe in _evidence(history):
        for name, opened in (("alignment", leading(evidence)), ("level", level(evidence))):
            if opened is not None:
                (active.add if opened else active.discard)(name)
        if active - raised:
            alarms.append((probe.step, ""))
        raised = raised | active if active else set()
    return alarms


def level_alone(history: Sequence[Probe]) -> Alarms:
    """The level alarm, with the whole chance."""
    level = _level(FALSE_ALARMS)
    opened = [level(evidence) for evidence, _ in _evidence(history)]
    held = False
    holds = [held := held if now is None else now for now in opened]
    return _begins(history, holds)


def naive_cosine(history: Sequence[Probe]) -> Alarms:
    """The cosine of the two averaged gradients, diagonal included, is negative."""
    return _begins(
        history,
        [p.gramian is not None and (p.weights[:, None] * p.gramian).sum() < 0 for p in history],
    )


def sampled(history: Sequence[Probe]) -> Alarms:
    """Sampled pass@1 is 2 points below the sampled reference."""
    reference = history[0].track.reference
    return _begins(history, [p.pass_at_1 < reference - 0.02 for p in history])


def _evidence(history: Sequence[Probe]) -> Iterator[tuple[LookEvidence, Probe]]:
    for p in history:
        yield (
            LookEvidence(
                p.update_alignment, p.track, p.groups, drift=p.drift, steps=p.reading.steps
            ),
            p,
        )


def _level(false_alarms: float) -> Callable[[LookEvidence], bool | None]:
    detector = LevelDetector(DetectorSettings(false_alarms, TOLERANCE))
    return lambda evidence: detector.update(evidence)[None]


def _begins(history: Sequence[Probe], holds: Sequence[bool]) -> Alarms:
    looks = zip(history, holds, [False, *holds[:-1]], strict=True)
    return [(p.step, "") for p, now, was in looks if now and not was]


RULES: dict[str, Callable[[Sequence[Probe]], Alarms]] = {
    "today": today,
    "without step 0": without_step_0,
    "before": before,
    "level alone": level_alone,
    "sampled -2 points": sampled,
    "naive cosine < 0": naive_cosine,
}
