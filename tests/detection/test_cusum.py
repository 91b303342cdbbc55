"""The fused CUSUM: run lengths by simulation, beside rules that break them."""

import math

import numpy as np
import pytest

from passk_guard.detection.cusum import AlignmentDetector, FusedCusum, cusum_threshold
from passk_guard.detection.detector import DetectorSettings, LookEvidence
from passk_guard.detection.drift_scale import DriftScale
from passk_guard.statistics.first_test import FirstTest
from passk_guard.statistics.track import Drift, Increment, PairedTrack, Track

NOMINAL = 1e-2
CALM = Track(0.6, 0.02, 0.56, 0.64, 0.6, 0.0, 0.001)


def rate(looks, step):
    """Alarms per look of a rule that starts afresh after each."""
    cusum, alarms = FusedCusum(cusum_threshold(NOMINAL)), 0
    for _ in range(looks):
        step(cusum)
        if cusum.open:
            alarms, cusum = alarms + 1, FusedCusum(cusum.threshold)
    return alarms / looks


@pytest.mark.parametrize("seen", ["u", "d", "both", "either"])
def test_the_run_length_is_the_one_asked_for_whatever_is_at_hand(seen):
    rng = np.random.default_rng(0)

    def step(cusum):
        u, d = rng.normal(size=2)
        which = rng.choice(["u", "d", "both"]) if seen == "either" else seen
        cusum.update(None if which == "d" else u, None if which == "u" else d)

    looks = 60_000
    assert rate(looks, step) == pytest.approx(NOMINAL, rel=0.2)


def test_evidence_that_is_counted_twice_fails_the_same_test():
    rng = np.random.default_rng(0)

    def step(cusum):
        u, d = rng.normal(size=2)
        cusum.update((u + 2 * d) / math.sqrt(3), None)  # as if errors cancelled

    assert rate(20_000, step) > 2 * NOMINAL


def test_overwhelming_evidence_needs_one_look_whatever_the_threshold():
    for chance in (1e-2, 1e-3, 1e-6):
        cusum = FusedCusum(cusum_threshold(chance))
        cusum.update(-2.0, -30.0)
        assert cusum.open
    heavy = FusedCusum(cusum_threshold(5e-4))
    heavy.update(-30.0, None)  # one batch of gradients may be an outlier
    assert not heavy.open
    ordinary = FusedCusum(cusum_threshold(5e-4))
    ordinary.update(-3.0, None)
    assert not ordinary.open


def looks_until_clear(rng, mean, most=200):
    cusum = FusedCusum(cusum_threshold(5e-4))
    cusum.update(None, -30.0)
    for looks in range(1, most):
        cusum.update(rng.normal(mean), None)
        if not cusum.open:
            return looks
    return most


def test_it_clears_within_a_few_looks_once_the_evidence_is_gone_and_not_before():
    rng = np.random.default_rng(0)
    gone = [looks_until_clear(rng, 0.0) for _ in range(2000)]
    assert 3 <= np.mean(gone) <= 5
    there = [looks_until_clear(rng, -2.0) for _ in range(500)]
    assert np.mean(np.array(there) > 20) > 0.95


def test_a_look_that_knows_neither_changes_nothing():
    cusum = FusedCusum(3.0)
    cusum.update(-2.0, None)
    before = cusum.state_dict()
    cusum.update(None, None)
    assert cusum.state_dict() == before


def drift(change, se=0.004):
    return Drift(change, se**2)


def test_the_drift_is_scaled_by_error_and_wander_of_the_past():
    scale = DriftScale()
    assert scale(drift(-0.01), 10) == pytest.approx(-0.01 / math.hypot(0.004, 0.002))
    assert scale(None, 10) is None
    half = DriftScale()
    assert half(drift(-0.01), 5) == pytest.approx(-0.01 / math.sqrt(0.004**2 + 0.002**2 / 2))


def test_an_increment_that_goes_back_is_no_surer_than_its_own_error():
    track = PairedTrack(0.6, 0.005**2)
    back = Increment(-0.052, -1e-4, 0.0, 0.029**2)  # seen at a learning rate of .1
    d = DriftScale()(track.update(back, None, 1), 1)
    assert d == pytest.approx(-0.052 / math.hypot(0.029, 0.002 / 10**0.5))


def test_over_a_long_interval_a_healthy_run_does_not_wander_off():
    assert DriftScale()(drift(-0.02), 800) == pytest.approx(-0.02 / math.hypot(0.004, 0.004))


def test_wandering_widens_the_scale_and_a_steady_loss_does_not():
    rng = np.random.default_rng(0)
    steady, wandering = DriftScale(), DriftScale()
    for _ in range(40):
        steady(drift(-0.01 + 0.001 * rng.normal(), 0.001), 10)
        wandering(drift(0.01 * rng.normal(), 0.001), 10)
    assert steady(drift(-0.01, 0.001), 10) < -4
    assert -1.5 < wandering(drift(-0.01, 0.001), 10) < -0.6


def test_a_wandering_run_that_restarts_keeps_to_its_chance():
    """True steps of a fifth of a point, seen with an error that is itself estimated."""
    rng, scale = np.random.default_rng(1), DriftScale()

    def step(cusum):
        se = 0.004 * rng.chisquare(63) ** 0.5 / 63**0.5
        cusum.update(None, scale(drift(rng.normal(0, 0.002) + rng.normal(0, 0.004), se), 10))

    assert rate(20_000, step) == pytest.approx(NOMINAL, rel=0.4)


def first(z):
    return FirstTest(inner=z, z=z, threshold=3.5, prompts=512, chance=1e-3)


def look(**found):
    return LookEvidence(**{"update": None, "track": CALM, "groups": {}, **found})


def test_the_references_gradients_open_the_alarm_and_else_count_as_a_first_look():
    sure = AlignmentDetector(DetectorSettings(5e-4, 0.01))
    assert sure.update(look(first=first(-4.0))) == {None: True}
    assert sure.opposed_z == -4.0
    unsure = AlignmentDetector(DetectorSettings(5e-4, 0.01))
    assert unsure.update(look(first=first(-3.0))) == {None: False}
    assert unsure.cusum.value == 2.5


def test_a_resumed_detector_goes_on_as_the_first_one():
    rng = np.random.default_rng(0)
    one, other = (AlignmentDetector(DetectorSettings(5e-4, 0.01)) for _ in range(2))
    for _ in range(5):
        one.update(look(drift=drift(rng.normal(-0.005, 0.004)), steps=10))
    other.load_state_dict(one.state_dict())
    for _ in range(20):
        evidence = look(drift=drift(rng.normal(-0.005, 0.004)), steps=5)
        assert one.update(evidence) == other.update(evidence)
        assert one.state_dict() == other.state_dict()
