"""The leading alarm: one CUSUM (Page 1954) of the inner product and of the paired drift.

With ``u`` the inner product ``⟨∇J_train, ∇J_1⟩`` of a look and ``d`` the paired drift of
pass@1, each in units of an error that was known *before* the look::

    S ← max(0, S - x - 1/2)      x = clip((clip(u, ±4) + 2 d) / √5)

or ``u`` or ``d`` alone where only one is at hand: a re-scoring has no gradients, a look without
signal nothing to differentiate. The drift counts double because its error is the smaller one, and
``u`` is clipped because heavy-tailed gradients make outliers of it. Where neither is at hand the
look does not count. ``tests/benchmarks/fused_calibration.py`` has the rates of false alarms.
"""

from __future__ import annotations

import math

from passk_guard.detection.detector import DetectorSettings, LookEvidence, register_detector
from passk_guard.detection.drift_scale import DriftScale
from passk_guard.runtime.stored import Stored

_CLIP, _CLIP_INNER = 6.0, 4.0
_ALLOWANCE = 0.5
_WHILE_OPEN = 2.0  # most that S is while the alarm is open: about four looks from clearing


def cusum_threshold(false_alarms: float) -> float:
    """Threshold h at which a CUSUM with allowance 1/2 has a mean run length 1/false_alarms.

    Siegmund's (1985) approximation: ``2 (e^b - b - 1)`` with ``b = h + 1.166``.

    >>> round(cusum_threshold(5e-4), 2)
    5.75
    """
    run_length = 1.0 / false_alarms
    b = math.log(run_length / 2 + 1)
    for _ in range(50):  # the fixed point of b = log(run_length / 2 + b + 1)
        b = math.log(run_length / 2 + b + 1)
    return max(b - 1.166, 0.5)


class FusedCusum(Stored):
    """The sum, and whether it is open: it opens above ``h`` and closes at 0.

    While it is open it stays below a ceiling, so that it clears within a few looks once there is
    no evidence any more.

    Args:
        threshold: h.

    Attributes:
        value: S.
        open: whether there is an alarm.
    """

    _stored = ("value", "open", "_opposed", "_looks")

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        # Overwhelming evidence passes at one look, whatever h is.
        self._clip = max(_CLIP, threshold + 2 * _ALLOWANCE)
        self.value = 0.0
        self.open = False
        self._opposed, self._looks = 0.0, 0  # sum of u, and its looks, since S was last at 0

    @property
    def opposed_z(self) -> float | None:
        """Inner products alone since S left 0, in standard errors; ``None`` where there are none.

        It tells whether it is the update that opposes pass@1.
        """
        return self._opposed / math.sqrt(self._looks) if self._looks else None

    def begin(self, z: float, *, opposed: bool) -> None:
        """Take in a first look, by a test that has an error chance of its own.

        Args:
            z: of the inner product.
            opposed: whether it was beyond its threshold, which opens the alarm.
        """
        self.update(z, None)
        if opposed and self.value > 0:
            self.value, self.open = min(self.value, _WHILE_OPEN), True

    def update(self, u: float | None, d: float | None) -> None:
        """Take in a look: its inner product and its drift, in units of their errors."""
        u = None if u is None else max(-_CLIP_INNER, min(_CLIP_INNER, u))
        parts = [(u, 1.0), (d, 2.0)]
        known = [(float(value), weight) for value, weight in parts if value is not None]
        if not known:
            return
        length = math.sqrt(sum(weight**2 for _, weight in known))
        x = sum(value * weight for value, weight in known) / length
        x = max(-self._clip, min(self._clip, x))
        self.value = max(0.0, self.value - x - _ALLOWANCE)
        if self.value == 0.0:
            self.open, self._opposed, self._looks = False, 0.0, 0
            return
        if u is not None:
            self._opposed, self._looks = self._opposed + float(u), self._looks + 1
        if self.value > self.threshold:
            self.open = True
        if self.open:
            self.value = min(self.value, _WHILE_OPEN)


class AlignmentDetector(Stored):
    """Opens and closes with its CUSUM; on the first look by the reference's gradients.

    Args:
        settings: as for every detector.
    """

    _stored = ("cusum", "_drift")

    leading = True

    def __init__(self, settings: DetectorSettings) -> None:
        self.cusum = FusedCusum(cusum_threshold(settings.false_alarms))
        self._drift = DriftScale()

    @property
    def opposed_z(self) -> float | None:
        """See :attr:`FusedCusum.opposed_z`."""
        return self.cusum.opposed_z

    def update(self, evidence: LookEvidence) -> dict[str | None, bool | None]:
        """Take in a look."""
        if (first := evidence.first) is not None:
            self.cusum.begin(first.z, opposed=first.opposed)
        else:
            self.cusum.update(_inner(evidence), self._drift(evidence.drift, evidence.steps))
        return {None: self.cusum.open}


def _inner(evidence: LookEvidence) -> float | None:
    if evidence.update is None or evidence.foretold is None:
        return None
    return (evidence.update.inner - evidence.foretold.mean) / evidence.foretold.se


register_detector("alignment", AlignmentDetector)
