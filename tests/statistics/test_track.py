"""The filter of fixes and increments: closed forms, coverage, and what fails without its parts."""

import numpy as np
import pytest

from passk_guard.statistics.track import Fix, Increment, PairedTrack


def test_one_fix_is_the_difference_of_two_levels():
    track = PairedTrack(0.6, 0.005**2)
    track.update(None, Fix(-0.03, 0.012**2), 10**9)  # whatever was before is forgotten
    now = track.now()
    assert now.change == pytest.approx(-0.03, abs=1e-6)
    assert now.change_se == pytest.approx(np.hypot(0.005, 0.012), rel=1e-3)
    assert now.pass_at_1 == pytest.approx(0.57, abs=1e-6)
    assert now.se == pytest.approx(0.012, rel=1e-3)


def test_fixes_of_a_policy_that_stands_still_average_down_to_the_reference():
    """By weighted least squares: D = 0 known, so fixes tell the reference's error."""
    track, rng = PairedTrack(0.6, 0.005**2), np.random.default_rng(0)
    fixes = rng.normal(0, 0.012, 30)
    for y in fixes:
        track.update(Increment(0.0, 0.0), Fix(y, 0.012**2), 10)
    assert track.now().change == 0.0
    weights = np.array([1 / 0.005**2, *[1 / 0.012**2] * 30])
    error = -np.average([0.0, *fixes], weights=weights)
    assert track.now().reference == pytest.approx(0.6 - error, abs=1e-9)


def test_increments_alone_add_up():
    track = PairedTrack(0.6, 0.005**2)
    for _ in range(4):
        drift = track.update(Increment(-0.004, 0.001**2), None, 10)
        assert (drift.change, drift.variance, drift.rescored) == (-0.004, 0.001**2, True)
    assert track.now().change == pytest.approx(-0.016)
    assert track.now().change_se == pytest.approx(0.002)
    assert track.now(between=0.003**2).change_se == pytest.approx(np.hypot(0.002, 0.003))
    assert track.update(None, None, 10) is None


def test_a_fix_far_from_what_increments_foretold_counts():
    track = PairedTrack(0.6, 0.005**2)
    for _ in range(3):
        track.update(Increment(0.0, 0.001**2), Fix(0.0, 0.01**2), 10)
    track.update(Increment(0.0, 0.001**2), Fix(-0.12, 0.01**2), 10)
    assert track.now().change < -0.1


def runs(looks, *, jump, reference=0.005, told=True, seed=0):
    """z of the change of policies that move by ``jump`` per look, without increments."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(200):
        error, truth = rng.normal(0, reference), 0.0
        track = PairedTrack(0.6, (reference if told else 1e-4) ** 2)
        for _ in range(looks):
            truth += rng.normal(0, jump)
            track.update(None, Fix(truth - error + rng.normal(0, 0.01), 0.01**2), 10)
            found.append((track.now().change - truth) / track.now().change_se)
    return np.array(found)


@pytest.mark.parametrize("jump", [0.001, 0.01, 0.05])
def test_the_error_is_true_at_any_speed(jump):
    z = runs(20, jump=jump)
    assert 0.75 < np.sqrt(np.mean(z**2)) < 1.15
    assert np.mean(np.abs(z) < 1.96) > 0.93


def test_without_the_reference_as_a_state_it_is_not():
    z = runs(20, jump=0.001, reference=0.012, told=False)
    assert np.sqrt(np.mean(z**2)) > 1.5


def test_how_fast_a_policy_moves_is_learnt():
    slow, fast = (PairedTrack(0.6, 0.005**2) for _ in range(2))
    rng, truth = np.random.default_rng(0), 0.0
    for _ in range(40):
        truth += rng.normal(0, 0.06)
        slow.update(None, Fix(rng.normal(0, 0.01), 0.01**2), 10)
        fast.update(None, Fix(truth + rng.normal(0, 0.01), 0.01**2), 10)
    assert slow.wander**0.5 < 0.012
    assert fast.wander**0.5 == pytest.approx(0.06, rel=0.4)


def test_the_forecast_is_what_comes():
    track = PairedTrack(0.6, 0.005**2)
    ahead = track.forecast(Increment(0.0, 0.002**2), 0.01**2, 6, 10)
    for _ in range(6):
        track.update(Increment(0.0, 0.002**2), Fix(0.0, 0.01**2), 10)
    assert ahead**0.5 == pytest.approx(track.now().change_se, rel=1e-9)


def test_its_state_goes_on():
    track, other = PairedTrack(0.6, 0.005**2), PairedTrack(0.0, 0.0)
    track.update(Increment(-0.01, 0.002**2, 1e-6), Fix(-0.02, 0.01**2), 10)
    other.load_state_dict(track.state_dict())
    for one in (track, other):
        one.update(None, Fix(-0.03, 0.01**2), 10)
    assert other.now() == track.now()
