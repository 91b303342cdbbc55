"""The floor under pass@1: what a change is measured against."""

from __future__ import annotations

from dataclasses import replace

from passk_guard.runtime.stored import Stored
from passk_guard.statistics.interval import Z95
from passk_guard.statistics.track import Track


class Floor(Stored):
    """Re-reads a track against the floor that the user wants kept.

    Args:
        kind: ``"start"``: pass@1 where the run began; ``"best"``: the best so far, by its lower
            95 % bound, or noise would ratchet it up, and never below the start; or a number.
    """

    _stored = ("_best",)

    def __init__(self, kind: str | float) -> None:
        self._kind = kind
        self._best = 0.0

    def under(self, track: Track) -> Track:
        """The track with reference, change and its error as seen from the floor."""
        if not isinstance(self._kind, str):
            return _against(track, float(self._kind))
        if self._kind == "best":
            self._best = max(self._best, track.pass_at_1 - Z95 * track.se)
            if self._best > track.reference:
                return _against(track, self._best)
        return track


def _against(track: Track, level: float) -> Track:
    return replace(track, reference=level, change=track.pass_at_1 - level, change_se=track.se)
