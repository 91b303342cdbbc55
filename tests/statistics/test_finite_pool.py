"""A pool is finite: what was drawn of it is known, and errors say so."""

import numpy as np
import pytest
import torch
from coins import CoinPolicy

from passk_guard import HeldOutPool
from passk_guard.statistics.levels import Levels
from passk_guard.statistics.track import Level, Pass1Track, sampled_level

POOL = 160


def errors(runs, *, told):
    """Error of the change in standard errors, of a whole pool's pass@1, over runs that move."""
    found = []
    for run in range(runs):
        torch.manual_seed(run)
        policy = CoinPolicy(POOL, 2, dim=16)
        pool = HeldOutPool([{"prompt": str(i)} for i in range(POOL)], seed=run)
        levels = Levels(policy, 4, None, pool=pool.sizes() if told else None)
        direction = torch.randn(16, dtype=torch.float64)
        start = float(policy.success().detach().mean())
        for t in range(4):
            ids = [pool.draw(40) for _ in range(3 if t == 0 else 1)]
            batches = [policy.generate(None, rows, 12) for rows in ids]
            scored = [levels.score(batch) for batch in batches]
            track = levels.fresh(10 * t, batches, scored, reference=t == 0).track
            now = float(policy.success().detach().mean())
            if t:
                found.append((track.change - (now - start)) / track.change_se)
            with torch.no_grad():
                policy.theta += 0.05 * direction
    return np.array(found)


@pytest.mark.simulation
def test_the_error_of_the_change_is_that_of_the_pool():
    told, untold = errors(60, told=True), errors(20, told=False)
    assert 0.88 < np.mean(np.abs(told) < 1.96) < 0.995
    assert 0.75 < np.sqrt(np.mean(told**2)) < 1.2
    assert np.sqrt(np.mean(untold**2)) < 0.75  # an error that is too large, though never too small


def test_once_all_are_drawn_only_sampling_noise_is_left():
    rates = np.random.default_rng(0).random(64)
    correct = np.random.default_rng(1).binomial(16, rates)
    whole = sampled_level(correct, [16] * 64, 64)
    part = sampled_level(correct, [16] * 64, 64_000)
    errors = []
    for level in (whole, part):
        track = Pass1Track()
        errors.append(track.update(level, None, 0).se ** 2)
    noise = np.mean(rates * (1 - rates)) / 16 / 64
    assert errors[0] == pytest.approx(noise, rel=0.2)
    assert errors[1] == pytest.approx(rates.var() / 64 + noise, rel=0.3)


def test_a_level_that_knows_nothing_of_a_pool_is_one_of_many_prompts():
    one, other = Pass1Track(), Pass1Track()
    assert one.update(Level(0.5, 0.1, 64), None, 0) == other.update(
        Level(0.5, 0.1, 64, 0.02, None), None, 0
    )


def test_weights_make_no_finite_pool():
    rows = [{"prompt": str(i), "w": 1 + i % 2} for i in range(20)]
    assert HeldOutPool(rows, weight_by="w").sizes() == {}
    assert HeldOutPool(rows).sizes(["a", "b"] * 10) == {None: 20, "a": 10, "b": 10}
