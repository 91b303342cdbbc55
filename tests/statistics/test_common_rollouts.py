"""A change of pass@1 on rollouts that both policies score, against the exact one."""

import math

import numpy as np
import pytest
import torch
from tiny import BanditPolicy

from passk_guard.rollouts.scores import score
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
    return common_rollouts(groups, score(a, groups), score(b, groups)), groups


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
    under_a = score(a, groups)
    under_b = [
        None if one is None else one + math.log(0.8) * group.completion_mask
        for one, group in zip(under_a, groups, strict=True)
    ]
    found = common_rollouts(groups, under_a, under_b)
    assert found.effective_sample_size == pytest.approx(1.0)
    assert not found.allowed
    assert "80% of what it says" in found.why_not


def test_without_a_signal_nothing_is_said():
    a, b = moved(0.1)
    _, groups = read(a, b)
    found = common_rollouts(groups, [None] * 200, [None] * 200)
    assert not found.allowed
    assert found.change == 0.0
    assert "solved sometimes" in found.why_not
