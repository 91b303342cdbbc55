"""The parts of a U-statistic's variance: against loops, exact enumeration and simulation."""

import itertools

import numpy as np
import pytest

from passk_guard.statistics.alignment import weighted_alignment
from passk_guard.statistics.variance import (
    VarianceParts,
    pooled_parts,
    unbiased_variance,
    variance_parts,
)


def whole_kernel(gradients, weights):
    return 0.5 * (weights[:, None] + weights[None, :]) * (gradients @ gradients.T)


def kernel(gradients, weights):
    H = whole_kernel(gradients, weights)
    return H - np.diag(np.diag(H))


def drawn(rng, m, d=2):
    return kernel(rng.normal(size=(m, d)) + 0.3, rng.random(m) * 3)


@pytest.mark.parametrize("m", [4, 6])
def test_every_part_is_the_mean_over_different_prompts(m):
    H = drawn(np.random.default_rng(m), m)
    got = variance_parts(H)
    triples = itertools.permutations(range(m), 3)
    fours = itertools.permutations(range(m), 4)
    assert got.shared == pytest.approx(np.mean([H[i, j] * H[i, k] for i, j, k in triples]))
    pairs = itertools.permutations(range(m), 2)
    assert got.square == pytest.approx(np.mean([H[i, j] ** 2 for i, j in pairs]))
    assert got.theta2 == pytest.approx(np.mean([H[i, j] * H[k, e] for i, j, k, e in fours]))
    assert got.m == m


@pytest.mark.parametrize("m", [4, 5, 24, 200])
@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_at_its_own_size_it_is_the_variance_that_is_reported(m, scale):
    H = scale * drawn(np.random.default_rng(m), m)
    row = H.sum(1)
    got = variance_parts(H, row)
    assert got.at(m) == pytest.approx(unbiased_variance(H, row), rel=1e-9)
    shipped = weighted_alignment(H, np.ones(m))
    assert got.jackknife_at(m) == pytest.approx(shipped.jackknife_se**2, rel=1e-9)
    assert got.kept_at(m) == pytest.approx(shipped.se**2, rel=1e-9)


# Three kinds of prompts, drawn with replacement: every expectation can be enumerated.
KINDS = whole_kernel(np.array([[1.0, 0.5], [-2.0, 1.0], [0.5, -1.0]]), np.array([0.5, 1.0, 4.0]))
SHARES = np.array([0.5, 0.3, 0.2])


def batches(m):
    """Every batch of m prompts of the population, with its probability."""
    for kinds in itertools.product(range(3), repeat=m):
        H = KINDS[np.ix_(kinds, kinds)]
        yield H - np.diag(np.diag(H)), SHARES[list(kinds)].prod()


def enumerated_variance(m):
    first = second = 0.0
    for H, chance in batches(m):
        U = H.sum() / (m * (m - 1))
        first, second = first + chance * U, second + chance * U**2
    return second - first**2


@pytest.mark.parametrize("size", [3, 5, 8])
def test_unbiased_at_every_size_by_exact_enumeration(size):
    mean = sum(chance * variance_parts(H).at(size) for H, chance in batches(5))
    assert mean == pytest.approx(enumerated_variance(size), rel=1e-10)


def test_negative_control_one_over_m_scaling_is_not_unbiased():
    scaled = sum(chance * variance_parts(H).at(5) * 5 / 8 for H, chance in batches(5))
    assert abs(scaled / enumerated_variance(8) - 1) > 0.2


def test_pooled_parts_foretell_the_spread_at_another_size():
    rng = np.random.default_rng(0)
    pooled = pooled_parts([variance_parts(drawn(rng, 24)) for _ in range(3000)])
    for size in (8, 64):
        values = [drawn(rng, size).sum() / (size * (size - 1)) for _ in range(4000)]
        # The spread of 4000 values is known to 1.1 %, with heavier tails to about 2.
        assert np.sqrt(pooled.at(size)) == pytest.approx(np.std(values), rel=0.06)


def test_pooling_weighs_by_prompts_and_by_the_weights_given():
    one, two = VarianceParts(1.0, 4.0, 0.5, 10), VarianceParts(3.0, 8.0, -0.5, 30)
    assert pooled_parts([one]) == one
    assert pooled_parts([one, two]) == VarianceParts(2.5, 7.0, -0.25, 40)
    assert pooled_parts([one, two], [3.0, 1.0]) == VarianceParts(2.0, 6.0, 0.0, 40)


def test_what_is_kept_is_never_negative():
    rng = np.random.default_rng(1)
    below = 0
    for _ in range(400):
        parts = variance_parts(drawn(rng, 6, 3) - 0.5 * (1 - np.eye(6)))
        for size in (3, 6, 64):
            below += parts.at(size) < 0
            assert parts.kept_at(size) >= max(parts.at(size), 0.0)
    assert below > 20  # the plain form is
    assert VarianceParts(-1.0, 1.0, 0.0, 6).kept_at(64) == pytest.approx(2 / (64 * 63))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: variance_parts(np.zeros((3, 3))), "at least 4 prompts, got 3"),
        (lambda: pooled_parts([]), "parts is empty"),
        (lambda: pooled_parts([VarianceParts(0, 1, 0, 4)], [1.0, 2.0]), "one entry per batch"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
