"""A run as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from passk_guard.probe import Probe

__all__ = ["history_table"]


def history_table(history: Sequence[Probe]) -> str:
    """One line per probe: sampled and filtered pass@1, pass@k, cosine with interval, z, alarm."""
    k = history[0].k if history else 1
    acted = any(probe.pass1_weight or probe.k != k for probe in history)
    head = ["step", "pass@1", f"pass@{k}", "pass@1 change ± 95 %", "cosine [95 %]", "z"]
    head += ["λ", "k"] if acted else []
    head += ["alarm"]
    rows = [head, *(_row(probe, acted=acted) for probe in history)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    rows.insert(1, ["─" * width for width in widths])
    lines = ["  ".join(map(str.rjust, row, widths)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _row(probe: Probe, *, acted: bool) -> list[str]:
    track, update, cosine = probe.track, probe.update_alignment, probe.cosine
    if probe.alarm is not None:
        alarm = "ALARM: " + " + ".join(probe.alarm.fired)
    else:
        alarm = "conflict" if probe.conflict else ""
    return [
        str(probe.step),
        f"{probe.pass_at_1:.3f}",
        f"{probe.pass_at_k:.3f}",
        f"{track.change:+.3f} ± {1.96 * track.change_se:.3f}",
        "–" if cosine is None else f"{cosine.value:+.2f} [{cosine.low:+.2f}, {cosine.high:+.2f}]",
        "no signal" if update is None else f"{update.z:+.1f}",
        *([f"{probe.pass1_weight:.2f}", f"{probe.k:.1f}"] if acted else []),
        alarm,
    ]
