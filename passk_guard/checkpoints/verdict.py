"""What a continuous-integration job is told of pass@1: held, fell, or not enough data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from passk_guard.statistics.paired_counts import PassChange


@dataclass(frozen=True)
class Decision:
    """A code and its sentence.

    Attributes:
        code: 0 where pass@1 surely did not fall by more than the tolerance, 1 where it surely did,
            2 where the data do not tell.
        sentence: for people.
        needed: prompts that would tell four times in five if nothing had changed.
    """

    code: int
    sentence: str
    needed: int | None


def decide(change: PassChange, a: str, b: str, tolerance: float) -> Decision:
    """Set the interval of the change of pass@1 against the tolerance.

    Args:
        change: of pass@1.
        a: name of the first.
        b: name of the second.
        tolerance: fall that is accepted.

    >>> same = PassChange(1, 9, 0, 0.5, 0.4, 0.6, 0.5, 0.4, 0.6, 0.0, -0.004, 0.004, 0.006)
    >>> decide(same, "a", "b", 0.01).code
    0
    """
    needed = _needed(change, tolerance)
    accepted = in_points(tolerance)
    figures = (
        f"{_share(change.before)} in {a}, {_share(change.after)} in {b}, a change of "
        f"{100 * change.change:+.1f} points (95 %: {100 * change.low:+.1f} to "
        f"{100 * change.high:+.1f}) on {change.prompts:,} prompts."
    )
    code = decision_code(change.low, change.high, tolerance)
    if code == 0:
        if change.low > 0:
            said = "pass@1 rose"
        elif change.high < 0:
            said = f"pass@1 fell, but by less than the {accepted} that are accepted"
        else:
            said = f"pass@1 did not fall by {accepted} or more"
        return Decision(code, f"{said}: {figures}", needed)
    if code == 1:
        more = f" by more than {accepted}" if tolerance else ""
        return Decision(code, f"pass@1 fell{more}: {figures}", needed)
    said = "Not enough data to tell whether pass@1 fell"
    if tolerance:
        said += f" by {accepted}"
        if change.high < 0:
            said = f"pass@1 fell, but not enough data to tell whether by {accepted}"
    hint = f" Had nothing changed, {needed:,} such prompts would tell." if needed else ""
    return Decision(code, f"{said}: {figures}{hint}", needed)


def _needed(change: PassChange, tolerance: float) -> int | None:
    """What is visible shrinks with the root of the number of prompts; with the number, at most."""
    if not tolerance or not math.isfinite(change.visible):
        return None
    times = change.visible / tolerance
    return math.ceil(change.prompts * max(times, times**2))


def decision_code(low: float, high: float, tolerance: float) -> int:
    """0, 1 or 2, see :class:`Decision`, from the interval of a change of pass@1.

    >>> decision_code(-0.004, 0.004, 0.01), decision_code(-0.03, -0.02, 0.01)
    (0, 1)
    """
    if low > -tolerance:
        return 0
    return 1 if high < -tolerance else 2


def in_points(share: float) -> str:
    """A share as it is said.

    >>> in_points(0.01)
    '1 point'
    """
    return f"{100 * share:g} point{'' if share == 0.01 else 's'}"


def _share(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")
