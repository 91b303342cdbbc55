"""Model-predictive control on a plant whose answer is known, and what goes wrong without it."""

import numpy as np
import pytest

from passk_guard.detection.alarm import AlarmKind
from passk_guard.remedies.controller import CONTROLLERS, ControlReading
from passk_guard.runtime.effort import Effort
from passk_guard.statistics.rollout_store import Drift
from passk_guard.statistics.track import Track

LEADING, LEVEL = AlarmKind("alignment", leading=True), AlarmKind("level")
SE = 0.004  # of a paired increment


def track(change, se=0.003):
    level = 0.64 + change
    return Track(level, se, level - 2 * se, level + 2 * se, 0.64, change, se)


def drift(change, se=SE, usable=True):
    return Drift(change, se, se**2, 64, 0.0, usable)


def plant(
    name="mpc",
    *,
    speed=1.0,
    a=-0.005,
    b=0.004,
    steps=300,
    every=10,
    alarm=0,
    rate=lambda step: 1.0,
    noise=1.0,
    seed=0,
    controller=None,
):
    """Pass@1 moves by ``(1-λ) a + λ b`` per ten steps at ``rate`` 1; an alarm opens at a step.

    Noise of the training, of the increments and of the track is as the guard sees it.
    """
    rng = np.random.default_rng(seed)
    controller = controller or CONTROLLERS.make(name, 0.01)
    change = share = effort = moved = peak = peak_before = 0.0
    seen = []
    for step in range(steps + 1):
        if step % every == 0:
            reading = ControlReading(
                step=step,
                track=track(change + noise * 0.003 * rng.normal()),
                conflicts=(LEADING,) if alarm <= step and change < 0.005 else (),
                drift=drift(moved + noise * SE * rng.normal()) if step else None,
                share=share,
                effort=Effort(
                    effort / peak if peak else 0.0, peak / peak_before if peak_before else 1.0
                ),
            )
            share = controller.update(reading)
            seen.append((change, share))
            effort = moved = 0.0
            peak_before = peak
        now = rate(step)
        peak = max(peak, now)
        effort += now
        step_noise = noise * 0.0015 * rng.normal() / 10**0.5
        one = now * (speed * ((1 - share) * a + share * b) / 10 + step_noise)
        change, moved = change + one, moved + one
    return np.array(seen)


def lowest(name, seeds=20, **settings):
    """Mean over seeds of the lowest point of pass@1, in points."""
    return 100 * np.mean([plant(name, seed=s, **settings)[:, 0].min() for s in range(seeds)])
