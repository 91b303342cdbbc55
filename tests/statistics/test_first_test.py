"""The test before training: its parts against closed forms, size and power by simulation."""

import itertools
import math

import numpy as np
import pytest
from factored import first_z as many_z
from factored import kernels, simulated
from nulls import CONTROLS, NULLS

from passk_guard.statistics.alignment import symmetric_kernel, weighted_alignment
from passk_guard.statistics.first_test import (
    first_test,
    first_threshold,
    first_z,
    likelihood_root,
)


def drawn(generator, seed, m):
    gradients, weights = generator(np.random.default_rng(seed), m)
    return gradients @ gradients.T, weights


# The empirical likelihood -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "values"),
    [
        ((12, 8), (1.0, -2.0, -0.5)),
        ((12, 8), (-1.0, 3.0, -1.0)),
        ((30, 5), (1.0, -2.0, -0.5)),
        ((30, 5), (0.2, 0.1, -0.9)),  # two solutions
        ((7, 60), (1.0, -2.0, -0.5)),
        ((7, 60), (0.2, 0.1, -0.9)),  # two solutions
    ],
)
def test_of_two_kinds_of_prompts_it_is_a_quadratic_equation(counts, values):
    """Prompts of a kind share their weight: α among the first, 1 - α among the others."""
    (a, b), (same_a, same_b, other), m = counts, values, sum(counts)
    kind = np.repeat([0, 1], counts)
    H = np.array([[same_a, other], [other, same_b]])[np.ix_(kind, kind)]
    np.fill_diagonal(H, 0)
    x, y = same_a * (1 - 1 / a), same_b * (1 - 1 / b)
    roots = np.roots([x + y - 2 * other, 2 * other - 2 * y, y])
    found = [
        -2 * (a * math.log(m * r / a) + b * math.log(m * (1 - r) / b))
        for r in roots
        if np.isreal(r) and 0 < r < 1
    ]
    assert likelihood_root(H) == pytest.approx(math.sqrt(min(found)), rel=1e-4)


def test_no_other_weights_are_likelier():
    rng = np.random.default_rng(0)
    m, close = 5, 0
    for _ in range(12):
        g = rng.normal(size=(m, 3))
        H = symmetric_kernel(g @ g.T, np.ones(m))
        best = likelihood_root(H)
        if best == math.inf:
            continue
        # Rays from equal weights, each up to where the statistic vanishes.
        others = []
        for ray in rng.normal(size=(600, m)):
            ray = ray - ray.mean()
            for t in np.roots([ray @ H @ ray, 2 * (H.mean(0) @ ray), H.mean()]):
                v = 1 / m + np.real(t) * ray
                if np.isreal(t) and v.min() > 0:
                    others.append(math.sqrt(-2 * np.log(m * v).sum()))
        if others:
            assert best <= min(others) * (1 + 1e-6)
            close += min(others) < 1.2 * best + 0.05
    assert close > 5


def test_to_first_order_it_is_the_jackknife():
    for seed, near in ((1, 0.05), (4, 0.02)):  # the smaller z, the nearer
        K, weights = drawn(NULLS["orthogonal, rank 3"], seed, 400)
        shipped = weighted_alignment(K, weights)
        root = likelihood_root(symmetric_kernel(K, weights))
        assert root == pytest.approx(abs(shipped.inner) / shipped.jackknife_se, rel=near)


def test_nothing_to_re_weigh():
    assert likelihood_root(np.zeros((6, 6))) == 0.0
    assert likelihood_root(1 - np.eye(6)) == math.inf


# The test ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["orthogonal, rank 2, weak", "orthogonal, rare hard, strong"])
@pytest.mark.parametrize("m", [24, 96])
def test_the_simulation_computes_what_is_shipped(name, m):
    for gradients, weights in simulated(NULLS[name], np.random.default_rng(m), 200, m):
        many = many_z(gradients, weights, beyond=1.0)
        for z, g, w in zip(many, gradients, weights, strict=True):
            if z < -1:
                H = symmetric_kernel(g @ g.T, w)
                assert first_z(H)[1] == pytest.approx(z, rel=1e-3)


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_scale_does_not_matter(scale):
    K, weights = drawn(CONTROLS["opposed"], 0, 64)
    one, two = first_test(K, weights, 1e-3), first_test(K * scale, weights, 1e-3)
    assert two.z == pytest.approx(one.z, rel=1e-5)
    assert two.inner == pytest.approx(one.inner * scale)


def test_a_plain_conflict_is_found_and_its_opposite_is_not():
    rng = np.random.default_rng(0)
    hard = np.arange(256) < 50
    gradients = 0.5 * rng.normal(size=(256, 4))
    gradients[:, 0] += np.where(hard, -1.0, 1.0)
    against = first_test(gradients @ gradients.T, np.where(hard, 4.0, 0.1), 1e-3)
    along = first_test(gradients @ gradients.T, np.where(hard, 0.1, 4.0), 1e-3)
    assert against.opposed
    assert against.inner < 0
    assert against.prompts == 256
    assert against.z < -against.threshold
    assert not along.opposed
    assert along.z > 3


def test_no_signal_is_no_conflict():
    got = first_test(np.zeros((64, 64)), np.ones(64), 1e-3)
    assert (got.inner, got.z, got.opposed) == (0.0, 0.0, False)


def rates(name, m, draws, nominal):
    """False alarms over the nominal rate: of the test, and of ``z <`` a normal quantile."""
    rng = np.random.default_rng(2)
    ours = plain = 0
    for gradients, weights in simulated(NULLS[name], rng, draws, m):
        ours += int((many_z(gradients, weights) < -first_threshold(nominal, m)).sum())
        got = kernels(gradients, weights)
        plain += int((got.inner / np.sqrt(got.kept) < -3.09).sum())
    return ours / draws / nominal, plain / draws / 1e-3


@pytest.mark.simulation
@pytest.mark.parametrize(
    "name",
    [
        "low rank, constant weights",
        "heavy tails",
        "orthogonal, rank 2, weak",
        "orthogonal, rare hard, strong",
        "orthogonal, strong update",
        "rollouts, weak",
    ],
)
@pytest.mark.parametrize("m", [64, 256])
def test_false_alarms_on_every_kind_of_null(name, m):
    draws = 12_000 if m == 64 else 6_000
    ours, _ = rates(name, m, draws, 1e-2)
    slack = 2.5 * math.sqrt(2 / (draws * 1e-2))
    assert ours < 2 + slack


@pytest.mark.parametrize("name", ["low rank, constant weights", "orthogonal, rank 2, weak"])
def test_negative_control_a_plain_z_cries_wolf(name):
    ours, plain = rates(name, 64, 5_000, 1e-3)
    assert plain > 5
    assert ours < 5


def test_thresholds_fall_with_prompts_and_rise_with_rarity():
    sizes, chances = (32, 64, 127, 128, 256, 2000), (0.05, 1e-2, 1e-3, 5e-4, 1e-5)
    table = np.array([[first_threshold(a, m) for a in chances] for m in sizes])
    assert (np.diff(table, axis=1) >= 0).all()
    assert (np.diff(table, axis=0) <= 0).all()
    assert table[-1, 2] == pytest.approx(1.16 * 3.0902, abs=1e-3)  # clear of a real task's 4.2
    assert first_threshold(1e-2, 64) == 2.9
    assert first_threshold(1e-2, 31) == math.inf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: first_threshold(0.0, 64), "false_alarms must lie"),
        (lambda: first_threshold(0.6, 64), "false_alarms must lie"),
        (lambda: first_test(np.zeros((3, 3)), [1] * 3, 1e-3), "at least 4 prompts"),
        (lambda: first_test(np.zeros((8, 8)), [1] * 3, 1e-3), "weights must have one"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_pairs_of_the_kernel():
    K, weights = np.arange(16.0).reshape(4, 4), np.array([1.0, 2, 3, 4])
    K = K + K.T
    H = symmetric_kernel(K, weights)
    for i, j in itertools.product(range(4), repeat=2):
        assert H[i, j] == (0 if i == j else (weights[i] + weights[j]) / 2 * K[i, j])
