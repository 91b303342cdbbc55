"""A change of pass@1 on rollouts that both policies score, against the exact one."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import BanditPolicy

from passk_guard import RolloutGroup
from passk_guard.rollouts.scores import score_all
from passk_guard.statistics.common_rollouts import common_rollouts

ROWS = list(range(200))


def exact(policy):
    with torch.no_grad():
        return float(torch.stack([policy.success(x) for x in ROWS]).mean())


def moved(size, seed=0):
    """A bandit, and the same one moved."""
    a, b = (BanditPolicy(200, dim=3, seed=5) for _ in range(2))
    step = torch.randn(b.weight.shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        b.weight += size * step
    return a, b


def read(a, b, n=16, seed=0):
    torch.manual_seed(seed)
    groups = a.generate([{}] * len(ROWS), ROWS, n)
    return common_rollouts(groups, score_all(a, groups), score_all(b, groups)), groups


@pytest.mark.parametrize("size", [0.02, 0.1])
def test_the_interval_holds_the_exact_change_and_is_narrow(size):
    a, b = moved(size)
    truth, inside, widths = exact(b) - exact(a), 0, []
    for seed in range(60):
        found, groups = read(a, b, seed=seed)
        assert found.allowed
        inside += found.low < truth < found.high
        widths.append(found.high - found.low)
    assert inside >= 50  # of 57 expected, less 3.5 standard deviations
    sampled = math.sqrt(2 * np.mean([g.correct / 16 * (1 - g.correct / 16) / 16 for g in groups]))
    two_samples = 2 * 1.96 * sampled / math.sqrt(len(ROWS))
    assert np.mean(widths) < (0.3 if size < 0.05 else 0.9) * two_samples


def test_policies_that_are_far_apart_are_refused():
    found, _ = read(*moved(3.0))
    assert not found.allowed
    assert found.effective_sample_size < 0.5
    assert "too far apart" in found.why_not


def test_what_the_first_one_never_said_is_missed_and_noticed():
    """B answers a fifth of the time by an action that A never takes: the ratios are all .8."""
    a, _ = moved(0.0)
    torch.manual_seed(0)
    groups = a.generate([{}] * len(ROWS), ROWS, 16)
    under_a = score_all(a, groups)
    under_b = [
        one + math.log(0.8) * group.completion_mask
        for one, group in zip(under_a, groups, strict=True)
    ]
    found = common_rollouts(groups, under_a, under_b)
    assert found.effective_sample_size == pytest.approx(1.0)
    assert not found.allowed
    assert "80% of what it says" in found.why_not


def test_without_a_signal_nothing_is_said():
    a, b = moved(0.1)
    _, groups = read(a, b)
    right = [replace(group, success=torch.ones(16)) for group in groups]
    found = common_rollouts(right, score_all(a, right), score_all(b, right))
    assert not found.allowed
    assert "solved sometimes" in found.why_not


@pytest.mark.parametrize("prompts", [0, 1, 2, 199])
def test_on_few_prompts_nothing_is_said(prompts):
    a, b = moved(0.02)
    _, groups = read(a, b)
    few = groups[:prompts]
    found = (
        common_rollouts(few, score_all(a, few), score_all(b, few))
        if few
        else (common_rollouts([], [], []))
    )
    assert not found.allowed
    assert f"they take 200 prompts with two verdicts or more, and there are {prompts}" in (
        found.why_not
    )


def binary(p, q, n, rng):
    """Rollouts of one token, right with ``p`` under A and ``q`` under B, scored under both."""
    right = rng.random((len(p), n)) < p[:, None]
    one = torch.ones(n, 1, dtype=torch.long)
    scores = [
        [
            torch.from_numpy(row)[:, None]
            for row in np.log(np.where(right, x[:, None], 1 - x[:, None]))
        ]
        for x in (p, q)
    ]
    groups = [
        RolloutGroup(i, one, one, one, torch.from_numpy(own).float(), sampling_log_probs=told)
        for i, (own, told) in enumerate(zip(right, scores[0], strict=True))
    ]
    return common_rollouts(groups, *scores)


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_a_fall_where_the_first_one_is_always_right_is_never_taken_for_none(share):
    """A has no wrong rollout there: that B hardly says the right ones is all there is to see."""
    rng = np.random.default_rng(0)
    p = np.r_[np.full(300, 1 - 1e-9), np.linspace(0.1, 0.9, 100)]
    q = np.where(np.arange(400) < share * 400, 0.01, p)
    found = binary(p, q, 16, rng)
    truth = float((q - p).mean())
    assert not found.allowed or found.low < truth
    assert found.change == pytest.approx(truth, rel=0.1)
    same = binary(p, p, 16, rng)
    assert same.allowed
    assert -0.01 < same.low < 0 < same.high < 0.01  # of 400 prompts none differs: a rule of three


def test_the_interval_covers_the_change_of_the_population():
    """Prompts are drawn anew; a tenth of them fall by much."""
    rng, inside, allowed = np.random.default_rng(1), 0, 0
    for _ in range(60):
        p = rng.beta(0.6, 0.6, 200).clip(1e-6, 1 - 1e-6)
        odds = p / (1 - p) * np.where(rng.random(200) < 0.1, np.exp(-1.0), 1.0)
        found = binary(p, odds / (1 + odds), 16, rng)
        inside += found.low < -0.0133 < found.high
        allowed += found.allowed
    assert allowed == 60
    assert inside >= 51  # of 57 expected, less 3.5 standard deviations


def test_a_rare_kind_of_prompts_is_allowed_for():
    """A quick form of tests/benchmarks/common_coverage.py; the plain interval is the control."""
    rng = np.random.default_rng(3)
    fall = rng.random(4000) < 0.01
    truth = -0.55 * fall.mean()
    inside, plain = 0, 0
    for _ in range(40):
        lost = fall[rng.integers(0, 4000, 200)]
        found = binary(np.full(200, 0.6), np.where(lost, 0.05, 0.6), 8, rng)
        inside += found.low <= truth <= found.high
        plain += abs(found.change - truth) <= 1.96 * found.se
    assert inside >= 37
    assert plain <= 36
