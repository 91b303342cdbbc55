"""The sign of a pass@k step: when to look, what a look may spend, how many prompts settle it."""

import math

import numpy as np
import pytest
from factored import first_z as fast_first_z
from factored import kernels
from nulls import CONTROLS, NULLS

from passk_guard.statistics.alignment import symmetric_kernel
from passk_guard.statistics.first_test import FirstTest, first_test, first_threshold
from passk_guard.statistics.sign_test import (
    chance_of_look,
    look_sizes,
    prompts_needed,
    size_for,
)
from passk_guard.statistics.variance import variance_parts


def batch(name, m, seed=0):
    gradients, weights = (NULLS | CONTROLS)[name](np.random.default_rng(seed), m)
    return gradients @ gradients.T, weights


@pytest.mark.parametrize("prompts", [4, 100, 128, 200, 500, 512, 1000, 5000])
@pytest.mark.parametrize("at_once", [1, 64, 300])
def test_looks_double_up_to_all_prompts(prompts, at_once):
    sizes = look_sizes(prompts, at_once)
    assert sizes[-1] == prompts
    assert sizes == sorted(set(sizes))
    assert all(size % at_once == 0 for size in sizes[:-1])
    assert all(size >= min(prompts, 128) for size in sizes)
    assert sum(sizes) <= 2.5 * prompts + 2 * at_once  # gradients are taken anew at each
    if prompts == 512 and at_once == 64:
        assert sizes == [128, 256, 512]


@pytest.mark.parametrize("looks", [1, 2, 3, 6])
def test_whatever_the_looks_they_spend_no_more_than_the_chance(looks):
    spent = sum(
        chance_of_look(0.05, round_, look, looks)
        for round_ in range(1, 60)
        for look in range(1, looks + 1)
    )
    assert spent == pytest.approx(0.05)


def test_the_sign_is_sure_on_either_side():
    kernel, weights = batch("rollouts, opposed", 4096)
    low, high = first_test(kernel, weights, 0.04), first_test(kernel, -weights, 0.04)
    assert low.inner == pytest.approx(-high.inner)
    assert low.opposed
    assert not low.raises
    assert high.raises
    none = FirstTest(0.0, 0.0, 2.0, 512, 0.04)
    assert not none.sure
    assert math.isinf(first_test(kernel[:20, :20], weights[:20], 0.04).threshold)


@pytest.mark.simulation
@pytest.mark.parametrize("name", ["orthogonal, rank 3", "rollouts, strong", "heavy tails"])
def test_a_wrong_sign_is_rare_over_three_looks_and_the_plain_one_is_not(name):
    """A quick form of tests/benchmarks/sign_calibration.py: nominal .04, at most twice that."""
    rng, sizes, draws = np.random.default_rng(3), [128, 256, 512], 400
    ever, plain = np.zeros(draws, bool), np.zeros(draws, bool)
    for at in range(0, draws, 50):
        gradients, weights = NULLS[name](rng, 50 * 512)
        gradients, weights = gradients.reshape(50, 512, -1), weights.reshape(50, 512)
        for look, size in enumerate(sizes, start=1):
            g, w = gradients[:, :size], weights[:, :size]
            test = first_test(g[0] @ g[0].T, w[0], chance_of_look(0.05, 1, look, 3))
            ever[at : at + 50] |= fast_first_z(g, w, beyond=1.9) < -test.threshold
            got = kernels(g, w)
            plain[at : at + 50] |= got.inner / np.sqrt(np.maximum(got.kept, 1e-30)) < -1.645
    assert ever.mean() < 0.08 + 3 * math.sqrt(0.08 / draws)
    if name != "heavy tails":
        assert plain.mean() > 0.1  # the control fails


@pytest.mark.simulation
@pytest.mark.parametrize("name", list(CONTROLS))
def test_so_many_prompts_settle_it_as_are_asked_for(name):
    """A power of 60 to 80 % where the effect is as it is taken to be; of half of them far less."""
    kernel, weights = batch(name, 6000)
    H = symmetric_kernel(kernel, weights)
    parts, inner = variance_parts(H), H.sum() / (6000 * 5999)
    size = size_for(parts, inner, 0.04, 32)
    assert 64 < size < 6000
    assert power(name, size) == pytest.approx(0.75, abs=0.2)  # z falls short of the plain one
    assert power(name, size // 2) < power(name, size) - 0.15


def power(name, size, draws=240):
    rng, sure = np.random.default_rng(9), 0
    for _ in range(0, draws, 20):
        gradients, weights = CONTROLS[name](rng, 20 * size)
        pair = gradients.reshape(20, size, -1), weights.reshape(20, size)
        sure += (fast_first_z(*pair, beyond=1.5) < -first_threshold(0.04, size)).sum()
    return sure / draws


def test_what_was_not_seen_at_all_needs_no_number():
    kernel, weights = np.zeros((64, 64)), np.ones(64)
    assert prompts_needed(kernel, weights, first_test(kernel, weights, 0.04)) is None
    noise = np.random.default_rng(0).normal(size=(200, 2000))
    kernel = noise @ noise.T
    test = first_test(kernel, np.ones(200), 0.04)
    needed = prompts_needed(kernel, np.ones(200), test)
    assert needed is None or needed >= 200
