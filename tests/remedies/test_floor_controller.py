"""Floor control on a plant whose answer is known, and the settings that fail there."""

import numpy as np
import pytest

from passk_guard.detection.alarm import AlarmKind
from passk_guard.detection.detector import LookEvidence
from passk_guard.detection.episodes import ConflictDetector
from passk_guard.remedies.controller import ControlReading
from passk_guard.remedies.floor_controller import FloorController
from passk_guard.statistics.floor import Floor
from passk_guard.statistics.track import Track

LEVEL = AlarmKind("level")


def track(change, se=0.004, reference=0.64):
    level = reference + change
    return Track(level, se, level - 2 * se, level + 2 * se, reference, change, se)


def update(controller, now, step, conflicts):
    return controller.update(ControlReading(step, now, conflicts))


def plant(steps=300, every=10, needed=0.6, speed=0.008, noise=0.0, seed=0, controller=None):
    """Pass@1 falls unless λ is ``needed``: per ten steps by ``speed`` at λ = 0."""
    rng = np.random.default_rng(seed)
    controller = controller or FloorController(0.01)
    detector = ConflictDetector(1e-3, 0.01)
    change, weight, seen = 0.0, 0.0, []
    for step in range(0, steps + 1, every):
        reading = track(change + noise * rng.normal())
        detector.update(LookEvidence(update=None, track=reading, groups={}))
        weight = update(controller, reading, step, tuple(detector.active))
        seen.append((change, weight))
        change = min(change - speed * (1 - weight / needed) * every / 10, 0.02)
    return np.array(seen)


@pytest.mark.parametrize("every", [5, 10, 20])
@pytest.mark.parametrize("needed", [0.3, 0.6, 0.8])
def test_pass1_is_held_at_the_floor_whatever_share_that_takes(every, needed):
    change, weight = plant(600, every, needed).T
    assert change[-1] > -0.02
    assert change.min() > (-0.05 if every <= 10 else -0.06)
    assert weight[-len(weight) // 4 :].mean() == pytest.approx(needed, abs=0.1)
    assert np.abs(np.diff(weight)).max() <= 0.2 + 1e-9


def test_noise_does_not_make_it_bang_between_its_ends():
    change, weight = plant(600, 10, noise=0.004).T
    assert change[-20:].mean() > -0.02
    assert weight[-20:].std() < 0.1


def test_without_memory_it_does_not_hold():
    """Negative control: proportional action alone stops well below the floor."""
    proportional = FloorController(0.01, integral=0.0)
    change, _ = plant(1000, 10, controller=proportional).T
    assert change[-1] < -0.03


def test_a_healthy_run_is_untouched():
    controller = FloorController(0.01)
    rng = np.random.default_rng(0)
    for step in range(0, 2000, 10):
        assert update(controller, track(0.02 * rng.normal()), step, ()) == 0.0
    assert update(controller, track(-0.05), 2000, ()) == 0.0  # no alarm, no action


def test_the_integral_starts_with_the_alarm_and_does_not_wind_up():
    controller = FloorController(0.01)
    update(controller, track(-0.05), 0, ())
    first = update(controller, track(-0.05), 1000, (LEVEL,))
    assert first == pytest.approx(0.2)  # rate limit; nothing from the thousand steps before
    for step in range(1010, 2000, 10):
        update(controller, track(-0.3), step, (LEVEL,))
    assert controller.value == 1.0
    steps = [update(controller, track(0.05), 2000 + 10 * i, ()) for i in range(40)]
    assert steps[0] == pytest.approx(0.95)  # lets go slowly,
    assert steps[-1] == 0.0  # but does let go


def test_it_is_closed_again_after_letting_go():
    controller = FloorController(0.01)
    update(controller, track(-0.05), 0, (LEVEL,))
    for step in range(10, 200, 10):
        update(controller, track(0.05), step, ())
    assert controller.value == 0.0
    assert update(controller, track(-0.02), 210, ()) == 0.0


def test_an_alignment_alarm_acts_before_anything_is_lost():
    controller = FloorController(0.01)
    values = [
        update(controller, track(0.0), step, (AlarmKind("alignment", leading=True),))
        for step in range(0, 50, 10)
    ]
    assert 0 < values[0] < values[-1] < 0.4


def test_it_resumes():
    controller = FloorController(0.01)
    for step in range(0, 60, 10):
        update(controller, track(-0.03 + 0.001 * step), step, (LEVEL,))
    other = FloorController(0.01)
    other.load_state_dict(controller.state_dict())
    later = [(track(-0.012), 70), (track(-0.02), 80)]
    assert [update(controller, t, s, ()) for t, s in later] == [
        update(other, t, s, ()) for t, s in later
    ]


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
