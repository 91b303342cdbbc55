"""The sentences that a user reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from passk_guard.config import PassKGuardConfig
from passk_guard.track import Track

if TYPE_CHECKING:
    from passk_guard.cosine import Cosine
    from passk_guard.probe import Probe

__all__ = ["alarm_message", "no_signal_message", "start_message"]


def alarm_message(
    step: int,
    fired: tuple[str, ...],
    track: Track,
    cosine: Cosine | None,
    k: int,
    prompts: tuple[int, ...],
    rows: Sequence[Mapping[str, Any]],
    config: PassKGuardConfig,
) -> str:
    """One paragraph: what fired, the figures, the prompts, what to do.

    Prompts appear as row ids; their text only with ``log_prompts=True``.
    """
    lines = [
        f"step {step}: training works against pass@1 ({' and '.join(fired)} alarm).",
        f"pass@1 {track.reference:.3f} -> {track.pass_at_1:.3f}, change {track.change:+.3f} "
        f"± {1.96 * track.change_se:.3f} (95 %).",
    ]
    if cosine is not None:
        lines.append(
            f"Cosine of the update with the pass@1 gradient {cosine.value:+.2f} "
            f"[{cosine.low:+.2f}, {cosine.high:+.2f}]."
        )
    if prompts:
        shown = [str(i) for i in prompts[:5]]
        if config.log_prompts:
            shown = [f"{i} ({str(rows[i]['prompt'])[:60]!r})" for i in prompts[:5]]
        lines.append(f"Held-out rows that carry it: {', '.join(shown)}.")
    lines.append(
        f"What helps: a k below {k}, a pass@1 term mixed into the objective, or going back to a "
        "checkpoint from before the loss."
    )
    return " ".join(lines)


def no_signal_message(probe: Probe) -> str:
    """What it means that fewer than two prompts have both right and wrong rollouts."""
    signal = round(probe.prompts * (1 - probe.no_signal))
    return (
        f"passk-guard: step {probe.step}: no signal. Of {probe.prompts} held-out prompts x "
        f"{probe.rollouts // probe.prompts} rollouts, {signal or 'none'} has both right and wrong "
        f"ones (pass@1 {probe.pass_at_1:.3f}). Without such prompts neither pass@1 nor pass@k has "
        "a gradient. This is no conflict, and no alarm can come of it."
    )


def start_message(config: PassKGuardConfig, pool: int, total_steps: int | None) -> str:
    """What the guard is about to do, with the false-alarm chance of the whole run."""
    m = min(config.prompts_per_probe, pool)
    if config.every is not None and config.max_overhead is None:
        when = f"every {config.every} steps"
        probes = None if total_steps is None else total_steps // config.every + 1
    else:
        when = f"within {100 * (config.max_overhead or 0.02):g} % of the run's time"
        probes = None
    text = f"passk-guard: probes of {m} held-out prompts x {config.n} rollouts, {when}"
    if probes:
        chance = 1 - (1 - config.false_alarms) ** probes
        text += f"; {probes} probes, false-alarm chance {100 * chance:.1f} % per run"
    return text + f". Pool: {pool} prompts, action: {config.action!r}."
