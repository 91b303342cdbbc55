"""PKPO advantages against enumeration of subsets."""

import itertools
import math

import pytest
import torch

from passk_guard import PassKObjective
from passk_guard.objectives import leave_one_out_advantages, pkpo_advantages


def slow_pkpo(rewards, k):
    """n / C(n,k) Σ_{I∋j} (max_I r - max_{I less j} r), subset by subset."""
    n = len(rewards)
    out = [0.0] * n
    for subset in itertools.combinations(range(n), k):
        best = max(rewards[i] for i in subset)
        for j in subset:
            out[j] += best - max(rewards[i] for i in subset if i != j)
    return [value * n / math.comb(n, k) for value in out]


@pytest.mark.parametrize("n", range(2, 8))
@pytest.mark.parametrize("kind", ["binary", "continuous", "ties", "negative"])
def test_pkpo_equals_subset_enumeration(n, kind):
    generator = torch.Generator().manual_seed(n)
    rewards = torch.randn(20, n, generator=generator, dtype=torch.float64)
    if kind == "binary":
        rewards = (rewards > 0).double()
    elif kind == "ties":
        rewards = rewards.round()
    elif kind == "negative":
        rewards = rewards - 10
    for k in range(2, n + 1):
        want = torch.tensor([slow_pkpo(row, k) for row in rewards.tolist()], dtype=torch.float64)
        got = pkpo_advantages(rewards, k)
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_unscorable_rollouts_are_left_out():
    nan = float("nan")
    rewards = torch.tensor([[1.0, nan, 0.0, 0.3, nan], [nan, nan, nan, nan, 1.0]])
    got = pkpo_advantages(rewards, 2)
    alone = pkpo_advantages(torch.tensor([[1.0, 0.0, 0.3]]), 2)
    torch.testing.assert_close(got[0, [0, 2, 3]], alone[0])
    assert not got[0, [1, 4]].any()
    assert not got[1].any()
    assert leave_one_out_advantages(rewards)[0, [1, 4]].tolist() == [0, 0]
    assert leave_one_out_advantages(rewards)[0].sum().abs() < 1e-6


def test_large_groups_are_finite():
    rewards = torch.rand(3, 10_000)
    for k in (2, 100, 9_999):
        assert pkpo_advantages(rewards, k).isfinite().all()


def test_k_and_weight_are_live():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    objective = PassKObjective(k=3)
    first = objective(rewards)
    objective.k = 2
    assert not torch.equal(objective(rewards), first)
    objective.pass1_weight = 1.0
    torch.testing.assert_close(objective(rewards), leave_one_out_advantages(rewards))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    assert PassKObjective(2)(torch.tensor([[1, 0, 0]], dtype=dtype)).dtype == dtype


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PassKObjective(0), "at least 1"),
        (lambda: PassKObjective(float("nan")), "at least 1"),
        (lambda: PassKObjective(2, pass1_weight=1.5), r"\[0, 1\]"),
        (lambda: PassKObjective(2, estimator="ppo"), "Choose one of: pkpo"),
        (lambda: PassKObjective(5)(torch.zeros(2, 4)), "groups of at least 5"),
        (lambda: PassKObjective(2)(torch.zeros(4)), r"\(groups, n\)"),
        (lambda: PassKObjective(2)(torch.zeros(2, 4, dtype=torch.long)), "floating"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
