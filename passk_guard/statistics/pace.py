"""How fast pass@1 changes at present: what the update does, in a unit that one can feel."""

from __future__ import annotations

import math
from dataclasses import dataclass

from passk_guard.runtime.stored import Stored
from passk_guard.statistics.interval import Z95
from passk_guard.statistics.track import Drift

_DECAY = 0.5


@dataclass(frozen=True)
class Pace:
    """Change of pass@1 per ten optimizer steps, with its 95 % interval.

    None of them beyond what is left of pass@1, upwards or down.
    """

    change: float
    low: float
    high: float


class PaceKeeper(Stored):
    """Paired increments, the last one and half as much of each one before."""

    _stored = ("_change", "_variance", "_steps")

    def __init__(self) -> None:
        self._change = self._variance = self._steps = 0.0

    def update(self, drift: Drift | None, steps: int, level: float | None = None) -> Pace | None:
        """Take in a look; ``None`` while no increment could be used.

        Args:
            drift: paired change since the last look.
            steps: optimizer steps that it took.
            level: pass@1 now, if known.
        """
        if drift is not None and steps > 0:
            self._change = _DECAY * self._change + drift.change
            self._variance = _DECAY**2 * self._variance + drift.variance
            self._steps = _DECAY * self._steps + steps
        if not self._steps:
            return None
        tens = self._steps / 10
        change, half = self._change / tens, Z95 * math.sqrt(self._variance) / tens
        least, most = (-1.0, 1.0) if level is None else (-level, 1 - level)
        return Pace(*(min(max(v, least), most) for v in (change, change - half, change + half)))
