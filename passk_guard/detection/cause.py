"""Why pass@1 falls: because of what is trained on, or in spite of it."""

from __future__ import annotations

from enum import StrEnum

from passk_guard.statistics.cosine import Cosine
from passk_guard.statistics.interval import Z95

_ONE_SIDED = 1.64


class Cause(StrEnum):
    """What an alarm is about. Only the first is a conflict of objectives.

    ``OPPOSED``: the update in force opposes pass@1. ``FALLING``: pass@1 falls although the update
    does not oppose it: steps too large, noise, a reward that the policy has learnt to exploit.
    ``UNKNOWN``: which of the two it is, is not known yet; or pass@1 is below a floor of the user's
    that it never reached.
    """

    OPPOSED = "opposed"
    FALLING = "falling"
    UNKNOWN = "unknown"


def find_cause(opposed_z: float | None, cosine: Cosine | None) -> Cause:
    """From the inner products of this episode, or where there are none, of the last probes.

    Args:
        opposed_z: of the inner products since evidence began to pile up, ``None`` without any.
        cosine: of the update in force, as shown beside the alarm.
    """
    if cosine is not None and abs(cosine.z) > Z95:  # what is shown as sure is the cause, too
        return Cause.OPPOSED if cosine.z < 0 else Cause.FALLING
    if opposed_z is None or abs(opposed_z) < _ONE_SIDED:
        return Cause.UNKNOWN
    if cosine is not None and cosine.z * opposed_z < 0:  # nor does it ever contradict what is shown
        return Cause.UNKNOWN
    return Cause.OPPOSED if opposed_z < 0 else Cause.FALLING
