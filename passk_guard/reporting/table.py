"""A run as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from passk_guard.detection.cause import Cause
from passk_guard.look import Look, Probe, Rescore
from passk_guard.statistics.interval import Z95

_MOST = 20  # rows of a selection


def history_table(history: Sequence[Look]) -> str:
    """One line per look: filtered pass@1, pass@k, change, pace, cosine with interval, z, alarm."""
    rows = cells(history)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["─" * width for width in widths])
    lines = ["  ".join(map(str.rjust, row, widths)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def cells(history: Sequence[Look]) -> list[list[str]]:
    """The head and one row per look."""
    probes = [look for look in history if isinstance(look, Probe)]
    k = probes[0].k if probes else 1
    acted = any(probe.pass1_weight or probe.k != k for probe in probes)
    head = ["step", "pass@1", f"pass@{k}", "change in the pool ± 95 %", "per 10 steps"]
    head += ["cosine [95 %]", "z"]
    head += ["λ", "k"] if acted else []
    return [[*head, "alarm"], *(_row(look, acted=acted) for look in history)]


def selected(
    history: Sequence[Probe], rescores: Sequence[Rescore], most: int = _MOST
) -> list[Look]:
    """A run's looks to show, by step: every alarm, the last probe, and evenly thinned probes.

    Args:
        history: probes.
        rescores: of these only what raised an alarm is shown.
        most: rows, unless there are more alarms than that.
    """
    alarms = [look for look in rescores if look.alarm is not None]
    must = {i for i, probe in enumerate(history) if probe.alarm is not None}
    must |= {len(history) - 1} if history else set()
    for count in range(min(len(history), most), 0, -1):
        even = np.linspace(0, len(history) - 1, count).round().astype(int)
        kept = sorted(must | set(even.tolist()))
        if len(kept) + len(alarms) <= most:
            break
    else:
        kept = sorted(must)
    looks: list[Look] = [*(history[i] for i in kept), *alarms]
    return sorted(looks, key=lambda look: look.step)


def _row(look: Look, *, acted: bool) -> list[str]:
    track = look.track
    head = [str(look.step), f"{track.pass_at_1:.3f}"]
    change = f"{track.change:+z.3f} ± {Z95 * track.change_se:.3f}"
    pace = "" if look.pace is None else f"{look.pace.change:+z.4f}"
    if look.alarm is not None:
        alarm = "ALARM: " + " + ".join(look.alarm.fired)
    else:
        alarm = "conflict" if look.conflict else ""
    if look.conflict and look.cause is Cause.FALLING:
        alarm = alarm.replace("conflict", "falling")
    if not isinstance(look, Probe):
        return [*head, "", change, pace, "", "", *(["", ""] if acted else []), alarm]
    cosine = look.cosine
    return [
        *head,
        f"{look.pass_at_k:.3f}",
        change,
        pace,
        "no signal" if look.update_alignment is None else str(cosine),
        "" if cosine is None else f"{cosine.z:+z.1f}",
        *([f"{look.pass1_weight:.2f}", f"{look.k:.1f}"] if acted else []),
        alarm,
    ]
