"""What an alarm says: what is known, why, and what helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from passk_guard.config import PassKGuardConfig
from passk_guard.detection.alarm import Alarm
from passk_guard.detection.cause import Cause
from passk_guard.look import Probe
from passk_guard.statistics.interval import Z95
from passk_guard.statistics.track import Track


def alarm_message(
    alarm: Alarm, config: PassKGuardConfig, rows: Sequence[Mapping[str, Any]] = ()
) -> str:
    """One paragraph: what fired, the figures, the prompts, what to do.

    Args:
        alarm: the facts.
        config: settings.
        rows: the pool; prompts are quoted with ``log_prompts=True`` only, else named by row id.
    """
    lines = [
        f"step {alarm.step}: {_headline(alarm)} ({' and '.join(alarm.fired)} alarm).",
        _levels("pass@1", alarm.track),
        *(_levels(f"pass@1 of {label!r}", track) for label, track in alarm.groups.items()),
    ]
    if (pace := alarm.pace) is not None:
        change, low, high = (100 * value for value in (pace.change, pace.low, pace.high))
        lines.append(f"At present {change:+z.2f} points per 10 steps [{low:+z.2f}, {high:+z.2f}].")
    if (cosine := alarm.cosine) is not None:
        lines.append(
            f"Cosine of the update with the pass@1 gradient {cosine} (z {cosine.z:+z.1f})."
        )
    if alarm.prompts and alarm.cause is not Cause.FALLING:
        shown = [str(i) for i in alarm.prompts[:5]]
        if config.log_prompts:
            shown = [f"{i} ({str(rows[i]['prompt'])[:60]!r})" for i in alarm.prompts[:5]]
        lines.append(f"Held-out rows that carry it: {', '.join(shown)}.")
    return " ".join([*lines, _advice(alarm.cause, config)])


def cause_in_words(
    cause: Cause, z: float | None, pace: float | None, change: float, whose: str = ""
) -> str:
    """What is happening, no surer than the figures that are told beside it.

    Args:
        cause: of the conflict, which stays ``opposed`` while a remedy turns the update.
        z: of the update's inner product, where known.
        pace: of pass@1 at present, where known.
        change: of pass@1 since its reference.
        whose: pass@1, where it is that of groups of prompts alone.
    """
    if cause is Cause.OPPOSED:
        if z is not None and z >= 0:
            return "training worked against pass@1 when this conflict began"
        seems = z is not None and z >= -Z95
        return f"training {'seems to work' if seems else 'works'} against pass@1"
    if cause is Cause.FALLING and min(change, pace or 0.0) < 0:
        falls = "falls" if pace is not None and pace < 0 else "has fallen"
        return f"pass@1 {falls} although the update does not oppose it"
    told = [change, *(figure for figure in (z, pace) if figure is not None)]
    if not whose and len(told) == 3 and min(told) >= 0:  # the alarm is older
        return "pass@1 was at risk when the alarm came, and no figure says so now"
    known = z is not None and abs(z) > Z95  # and said beside it
    return f"pass@1{whose} is at risk" + (
        "" if known else ", and whether the update opposes it is not known yet"
    )


def _headline(alarm: Alarm) -> str:
    z = None if alarm.cosine is None else alarm.cosine.z
    pace = None if alarm.pace is None else alarm.pace.change
    alone = alarm.groups and all(kind.group is not None for kind in alarm.fired)
    whose = f" of {', '.join(map(repr, alarm.groups))}" if alone else ""
    return cause_in_words(alarm.cause, z, pace, alarm.track.change, whose)


_STEADIER = (
    "a lower learning rate, larger batches, and a look at what the verifier rewards that is not "
    "right"
)


def _advice(cause: Cause, config: PassKGuardConfig) -> str:
    # Where nothing opposes pass@1, its own gradient still defends what is solved; pass@k's hardly.
    if config.remedy is not None:
        said = "The guard now takes its remedy."
        return f"{said} If that is not enough: {_STEADIER}." if cause is Cause.FALLING else said
    mend = (
        f"action='mix' (a pass@1 term in the objective), a k below {config.k}, or going back to a "
        "checkpoint from before the loss"
    )
    if cause is Cause.OPPOSED:
        return f"What helps: {mend}."
    said = "What helps against a conflict" if cause is Cause.UNKNOWN else "What helps"
    return f"{said}: {mend}. Else: {_STEADIER}."


def _levels(name: str, track: Track) -> str:
    return (
        f"{name} {track.reference:.3f} -> {track.pass_at_1:.3f} on the reference's prompts, change "
        f"in the pool {track.change:+z.3f} ± {Z95 * track.change_se:.3f} (95 %)."
    )


def foreseen_message(probe: Probe, k: int) -> str:
    """The reference's gradients oppose pass@1, but whether the update has these weights is unknown.

    Args:
        probe: the first one.
        k: that the run is said to optimise.
    """
    assert probe.first is not None, "else nothing was foreseen"
    return (
        f"passk-guard: step {probe.step}: the pass@{k} gradient works against pass@1 (z "
        f"{probe.first.z:+.1f} on {probe.first.prompts} held-out prompts). The loss of this run is "
        "out of sight, so this is no alarm, and nothing is done; if it optimises "
        f"pass@{k}, expect pass@1 to fall."
    )
