"""The filter on (a, b) against the textbook's, and against all data at once."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from passk_guard.remedies.drift_model import DriftModel

WANDER = 0.0015**2
TYPICAL = 0.01


def textbook(observed, typical=TYPICAL):
    """A Kalman filter in its covariance form, from a prior so wide that it says nothing."""
    mean, cov = np.zeros(2), np.eye(2) * 1e4
    for share, effort, change, variance in observed:
        cov = cov + WANDER * effort * np.eye(2)
        x = np.array([1 - share, share]) * effort
        gain = cov @ x / (x @ cov @ x + variance + WANDER * effort)
        mean = mean + gain * (change - x @ mean)
        cov = cov - np.outer(gain, x @ cov)
    # The prior, about the present.
    gain = cov @ np.linalg.inv(cov + typical**2 * np.eye(2))
    prior = np.array([-typical, typical])
    return mean + gain @ (prior - mean), cov - gain @ cov


def draws(rng, looks, share=None):
    return [
        (
            rng.random() if share is None else share,
            rng.uniform(0.2, 3),
            0.01 * rng.normal(),
            rng.uniform(0.001, 0.006) ** 2,
        )
        for _ in range(looks)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_textbooks_filter(seed):
    observed = draws(np.random.default_rng(seed), 12)
    model = DriftModel(TYPICAL)
    for look in observed:
        model.learn(*look)
    mean, cov = textbook(observed)
    assert model.drifts == pytest.approx(mean, rel=1e-4)
    assert model.b_se == pytest.approx(cov[1, 1] ** 0.5, rel=1e-4)
    across = np.array([-1, 1])
    assert model.z == pytest.approx(across @ mean / (across @ cov @ across) ** 0.5, rel=1e-4)


def test_one_look_is_bayes_rule():
    """At λ = 0 over ten steps only a is seen; b stays as it was believed to be."""
    model = DriftModel(TYPICAL)
    model.learn(0.0, 1.0, -0.02, 0.004**2)
    noise = 0.004**2 + WANDER
    a = (-0.01 / TYPICAL**2 - 0.02 / noise) / (1 / TYPICAL**2 + 1 / noise)
    assert model.drifts == pytest.approx((a, 0.01))
    assert model.b_se == pytest.approx(TYPICAL)


def test_nothing_seen_is_the_prior():
    model = DriftModel(TYPICAL)
    assert model.drifts == pytest.approx((-0.01, 0.01))
    assert model.z == pytest.approx(2**0.5)


def test_a_larger_learning_rate_scales_what_was_seen_and_not_the_prior():
    """As if all had been counted in the larger rate from the start."""
    rng = np.random.default_rng(1)
    scaled, direct, fresh = (DriftModel(TYPICAL) for _ in range(3))
    for share, effort, change, variance in draws(rng, 1):
        scaled.learn(share, effort, change, variance + 0.0)
        noise = variance + WANDER * effort
        direct.learn(share, effort / 4, change, noise - WANDER * effort / 4)
    scaled.scaled(4.0)
    assert scaled.drifts == pytest.approx(direct.drifts)
    assert scaled.b_se == pytest.approx(direct.b_se)
    fresh.scaled(1000.0)
    assert fresh.drifts == pytest.approx((-0.01, 0.01))


def test_it_finds_both_drifts_and_its_errors_are_honest():
    rng, errors = np.random.default_rng(2), []
    for _ in range(400):
        a, b = np.array([-TYPICAL, TYPICAL]) + TYPICAL * rng.normal(size=2)
        model = DriftModel(TYPICAL)
        for share in rng.random(8):
            a, b = np.array([a, b]) + WANDER**0.5 * rng.normal(size=2)
            drift = (1 - share) * a + share * b
            noise = (0.004**2 + WANDER) ** 0.5
            model.learn(share, 1.0, drift + noise * rng.normal(), 0.004**2)
        errors.append((model.drifts[1] - b) / model.b_se)
    assert np.std(errors) == pytest.approx(1.0, abs=0.1)
    assert np.mean(errors) == pytest.approx(0.0, abs=0.15)


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.floats(1e-6, 1e4), st.floats(-1, 1), st.floats(0, 1)),
        max_size=20,
    ),
    st.floats(1, 1e6),
)
def test_it_stays_finite_and_can_be_stored(observed, growth):
    model, other = DriftModel(TYPICAL), DriftModel(TYPICAL)
    for look in observed:
        model.learn(*look)
    model.scaled(growth)
    assert np.isfinite([*model.drifts, model.z, model.b_se]).all()
    assert 0 < model.b_se <= TYPICAL * (1 + 1e-6)
    other.load_state_dict(json.loads(json.dumps(model.state_dict())))
    assert other.state_dict() == model.state_dict()
    assert other.drifts == model.drifts
