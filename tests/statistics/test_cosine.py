"""The cosine by profile likelihood: against a plain search, and the coverage of its interval."""

import math

import numpy as np
import pytest

from passk_guard.statistics.alignment import weighted_alignment, weighted_kernels
from passk_guard.statistics.cosine import (
    Cosine,
    Parts,
    gradient_parts,
    profile_cosine,
)

HARD_SHARE, HARD_WEIGHT = 0.3, 4.0
EASY, HARD = np.eye(20)[0], -0.8 * np.eye(20)[0] + 0.6 * np.eye(20)[1]


def batch(rng, m=64, noise=1.0, hard=None):
    """Gradients whose noise has twenty directions: with four and fewer one probe undercovers."""
    hard = rng.random(m) < HARD_SHARE if hard is None else hard
    g = np.where(hard[:, None], HARD, EASY) + noise * rng.normal(size=(m, 20))
    return g, np.where(hard, HARD_WEIGHT, 0.2)


def truth():
    pass1 = (1 - HARD_SHARE) * EASY + HARD_SHARE * HARD
    passk = (1 - HARD_SHARE) * 0.2 * EASY + HARD_SHARE * HARD_WEIGHT * HARD
    return pass1 @ passk / np.linalg.norm(pass1) / np.linalg.norm(passk)


def found(rng, probes, m=64, noise=1.0):
    """Looks at the same prompts, later ones with more weight."""
    hard = rng.random(m) < HARD_SHARE
    shares = 0.85 ** np.arange(probes)[::-1]
    kernels = np.zeros((3, m, m))
    for share in shares / shares.sum():
        g, weights = batch(rng, m, noise, hard)
        kernels += share * weighted_kernels(g @ g.T, weights)
    return gradient_parts(kernels)


def delta_method(parts):
    """The interval that was shown before: around the clipped ratio of the pooled parts."""
    inner, one, other = parts.values
    if one <= 0 or other <= 0:
        return None
    value = float(np.clip(inner / math.sqrt(one * other), -1, 1))
    slope = np.array([1.0, -inner / (2 * one), -inner / (2 * other)]) / math.sqrt(one * other)
    half = 1.96 * math.sqrt(slope @ parts.jackknife @ slope)
    return max(-1.0, value - half), min(1.0, value + half)


@pytest.mark.parametrize("probes", [1, 3, 8])
def test_the_interval_covers_the_truth_and_shows_a_sure_sign(probes):
    rng, runs = np.random.default_rng(0), 300
    covered, shorter, hidden = [], [], 0
    for _ in range(runs):
        parts = found(rng, probes)
        cosine, before = profile_cosine(parts), delta_method(parts)
        covered.append(cosine.low <= truth() <= cosine.high)
        half = 0.5 * (cosine.high - cosine.low), 0.5 * (cosine.high + cosine.low)
        shorter.append(abs(truth() - half[1]) <= 0.5 * half[0])
        if abs(cosine.z) > 1.96:
            assert cosine.high <= 0 or cosine.low >= 0
            hidden += before is None or before[0] < 0 < before[1]
    assert 0.90 <= np.mean(covered) <= 0.995
    assert np.mean(shorter) < 0.90  # a test that an interval of half the length does not pass
    assert hidden > 0  # what the interval of before did hide


def test_it_converges_on_the_truth_and_pooling_narrows():
    rng = np.random.default_rng(0)
    values = [profile_cosine(found(rng, 1, m=600)).value for _ in range(30)]
    assert np.mean(values) == pytest.approx(truth(), abs=0.04)
    widths = [
        np.mean([c.high - c.low for c in (profile_cosine(found(rng, n)) for _ in range(30))])
        for n in (1, 8)
    ]
    assert widths[1] < 0.8 * widths[0]  # what differs between the prompts stays


def slow_profile(parts, rho):
    """D(ρ) by a plain search over both norms."""
    precision = np.linalg.inv(parts.covariance)
    sd = np.sqrt(np.diag(parts.covariance))
    norms = [
        np.linspace(0, np.sqrt(max(parts.values[i], 0) + 4 * sd[i]), 300)[:, None] for i in (1, 2)
    ]
    s, t = norms[0], norms[1].T
    mu = np.stack([rho * s * t, s**2 + 0 * t, t**2 + 0 * s], -1)
    rest = parts.values - mu
    return float(np.einsum("...i,ij,...j", rest, precision, rest).min())


def test_against_a_plain_search():
    rng = np.random.default_rng(2)
    for m, noise in ((24, 2.0), (64, 1.0), (64, 0.5)):
        parts = found(rng, 1, m, noise)
        cosine = profile_cosine(parts)
        values = {rho: slow_profile(parts, rho) for rho in np.linspace(-1, 1, 41)}
        best = min(values.values())
        inside = [rho for rho, d in values.items() if d <= best + 3.84]
        low, high = min(inside), max(inside)
        low, high = (max(low, 0.0), high) if cosine.z > 1.96 else (low, high)
        low, high = (low, min(high, 0.0)) if cosine.z < -1.96 else (low, high)
        assert (cosine.low, cosine.high) == pytest.approx((low, high), abs=0.06)
        at_value = slow_profile(parts, cosine.value)
        assert at_value == pytest.approx(best, abs=0.05) or cosine.value in (
            cosine.low,
            cosine.high,
        )


def test_parts_are_those_of_the_alignment():
    g, weights = batch(np.random.default_rng(3))
    parts, alignment = (
        gradient_parts(weighted_kernels(g @ g.T, weights)),
        weighted_alignment(g @ g.T, weights),
    )
    assert parts.values == pytest.approx(
        [alignment.inner, alignment.pass1_norm2, alignment.passk_norm2]
    )
    assert np.sqrt(parts.covariance[0, 0]) == pytest.approx(alignment.se)


def test_equal_weights_are_the_pass1_gradient_itself():
    g, _ = batch(np.random.default_rng(4), m=256, noise=0.5)
    cosine = profile_cosine(gradient_parts(weighted_kernels(g @ g.T, np.full(256, 3.0))))
    assert (cosine.value, cosine.high) == (1.0, 1.0)
    assert cosine.low > 0.9


def test_no_signal_says_nothing():
    cosine = profile_cosine(gradient_parts(weighted_kernels(np.zeros((8, 8)), np.ones(8))))
    assert (cosine.low, cosine.high, cosine.z, cosine.sized) == (-1.0, 1.0, 0.0, False)
    assert str(cosine) == "not known"


def parts_of(z, noise=1.0):
    return Parts(np.array(z) * noise, np.full(3, noise**2), np.eye(3) * noise**2)


@pytest.mark.parametrize(
    ("z", "text"),
    [((-4.0, 1.0, 9.0), "below"), ((4.0, -1.0, 9.0), "above"), ((0.5, 1.0, 1.0), "not known")],
)
def test_a_norm_that_is_not_sure_leaves_a_bound(z, text):
    cosine = profile_cosine(parts_of(z))
    assert not cosine.sized
    assert str(cosine).startswith(text)
    assert cosine.z == pytest.approx(z[0])


def test_its_unit_does_not_matter():
    one, other = (profile_cosine(parts_of((-3.0, 4.0, 9.0), noise)) for noise in (1e-9, 1e6))
    assert one == other
    assert isinstance(one, Cosine)
