"""What a change of pass@1 is measured against."""

import numpy as np
import pytest

from passk_guard.statistics.track import Floor, Track


def track(change, se=0.004, reference=0.64):
    level = reference + change
    return Track(level, se, level - 2 * se, level + 2 * se, reference, change, se)


def test_floors():
    now = track(-0.02)  # 0.62, from 0.64
    assert Floor("start").under(now) == now
    number = Floor(0.66).under(now)
    assert number.change == pytest.approx(-0.04)
    assert number.change_se == now.se
    best = Floor("best")
    assert best.under(track(0.0)).reference == 0.64
    best.under(track(0.06))
    lower_bound = 0.70 - 1.96 * 0.004
    assert best.under(track(0.0)).reference == pytest.approx(lower_bound)
    other = Floor("best")
    other.load_state_dict(best.state_dict())
    assert other.under(track(0.0)) == best.under(track(0.0))


def test_noise_does_not_ratchet_the_best_so_far_up():
    rng = np.random.default_rng(0)
    floor, plain = Floor("best"), 0.0
    for _ in range(200):
        seen = track(0.004 * rng.normal())
        reference = floor.under(seen).reference
        plain = max(plain, seen.pass_at_1)
    assert reference < 0.645
    assert plain > 0.648  # the best value seen is no floor
