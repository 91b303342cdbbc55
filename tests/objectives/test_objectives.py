"""Pass@k advantages against enumeration of subsets."""

import itertools
import math

import pytest
import torch

from passk_guard import PassKObjective, unbiased_prompt_weight
from passk_guard.objectives.advantages import (
    analytic_advantages,
    best_minus_second_advantages,
    leave_one_out_advantages,
    maxrl_advantages,
    pkpo_advantages,
)
from passk_guard.objectives.estimators import ESTIMATORS
from passk_guard.objectives.mixes import TrainerMix


def slow_pkpo(rewards, k):
    """n / C(n,k) Σ_{I∋j} (max_I r - max_{I less j} r), subset by subset."""
    n = len(rewards)
    out = [0.0] * n
    for subset in itertools.combinations(range(n), k):
        best = max(rewards[i] for i in subset)
        for j in subset:
            out[j] += best - max(rewards[i] for i in subset if i != j)
    return [value * n / math.comb(n, k) for value in out]


def slow_analytic(rewards, k):
    """Mean standardised best of the k-subsets that hold j."""
    n = len(rewards)
    best = {s: max(rewards[i] for i in s) for s in itertools.combinations(range(n), k)}
    mean = sum(best.values()) / len(best)
    deviation = math.sqrt(sum((b - mean) ** 2 for b in best.values()) / len(best))
    if deviation < 1e-9:
        return [0.0] * n
    out = []
    for j in range(n):
        mine = [b for s, b in best.items() if j in s]
        out.append((sum(mine) / len(mine) - mean) / deviation)
    return out


def some_rewards(n, kind):
    generator = torch.Generator().manual_seed(n)
    rewards = torch.randn(20, n, generator=generator, dtype=torch.float64)
    if kind == "binary":
        return (rewards > 0).double()
    if kind == "ties":
        return rewards.round()
    return rewards - 10 if kind == "negative" else rewards


KINDS = pytest.mark.parametrize("kind", ["binary", "continuous", "ties", "negative"])


@pytest.mark.parametrize("n", range(2, 8))
@KINDS
@pytest.mark.parametrize(
    ("fast", "slow"), [(pkpo_advantages, slow_pkpo), (analytic_advantages, slow_analytic)]
)
def test_advantages_equal_subset_enumeration(n, kind, fast, slow):
    rewards = some_rewards(n, kind)
    for k in range(2, n + 1):
        want = torch.tensor([slow(row, k) for row in rewards.tolist()], dtype=torch.float64)
        torch.testing.assert_close(fast(rewards, k), want, rtol=1e-7, atol=1e-7)


def test_analytic_is_the_papers_closed_form_on_binary_rewards():
    n, k = 8, 3
    for right in range(1, n):
        row = torch.tensor([[1.0] * right + [0.0] * (n - right)], dtype=torch.float64)
        wrong = n - right
        mean = 1 - math.comb(wrong, k) / math.comb(n, k)
        deviation = math.sqrt(mean * (1 - mean))
        got = analytic_advantages(row, k)[0]
        if deviation == 0:
            assert not got.any()
            continue
        missed = math.comb(wrong - 1, k - 1) / math.comb(n - 1, k - 1)
        assert float(got[0]) == pytest.approx((1 - mean) / deviation)
        assert float(got[-1]) == pytest.approx((1 - mean - missed) / deviation)


@pytest.mark.parametrize("n", range(2, 8))
@KINDS
def test_best_minus_second_is_pkpo_of_the_whole_group(n, kind):
    rewards = some_rewards(n, kind)
    got = best_minus_second_advantages(rewards)
    torch.testing.assert_close(got, pkpo_advantages(rewards, n))


def test_maxrl_by_hand():
    got = maxrl_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    assert got.tolist() == [[3.0, -1.0, -1.0, -1.0], [0.0, 0.0, 0.0, 0.0]]
    with pytest.raises(ValueError, match="at least 0"):
        maxrl_advantages(torch.tensor([[1.0, -1.0]]))


def test_a_k_between_two_mixes_both():
    rewards = some_rewards(6, "continuous")
    got = PassKObjective(2.25)(rewards)
    want = 0.75 * PassKObjective(2)(rewards) + 0.25 * PassKObjective(3)(rewards)
    torch.testing.assert_close(got, want)
    assert isinstance(PassKObjective(3.0).k, int)


@pytest.mark.parametrize("estimator", ["pkpo", "maxrl"])
def test_prompt_weight_is_what_the_advantages_amount_to(estimator):
    n, k = 8, 4
    for right in range(1, n):
        weight = PassKObjective(k, estimator=estimator).prompt_weight(right, n, None, None)
        if estimator == "pkpo":
            want = unbiased_prompt_weight(right, n, k)
        else:  # of orders 1 to n-1, each over its order
            want = sum(unbiased_prompt_weight(right, n, i) / i for i in range(1, n))
        assert weight == pytest.approx(want)
        mixed = PassKObjective(k, 0.25, estimator).prompt_weight(right, n, 2.0, None)
        assert mixed == pytest.approx(2.0 * (0.75 * want + 0.25))


def test_trainer_mix_weighs_the_trainers_own():
    mix = TrainerMix(8)
    assert mix.prompt_weight(1, 2, 3.0, None) == 3.0
    mix.pass1_weight, mix.scale = 0.25, 2.0
    assert mix.prompt_weight(1, 2, 3.0, None) == pytest.approx(0.75 * 3 + 0.25 * 2)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_unscorable_rollouts_count_for_nothing_in_every_estimator(estimator):
    nan = float("nan")
    objective = PassKObjective(2, 0.3, estimator)
    got = objective(torch.tensor([[1.0, nan, 0.0, 0.3, nan], [nan] * 5, [nan, nan, 1.0, nan, nan]]))
    alone = objective(torch.tensor([[1.0, 0.0, 0.3]]))
    torch.testing.assert_close(got[0, [0, 2, 3]], alone[0])
    assert not got[0, [1, 4]].any()
    assert not got[1:].any()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_ten_thousand_rollouts_are_finite_and_fast(estimator):
    import time

    rewards = torch.rand(4, 10_000)
    small = torch.rand(4, 1_000)
    for k in (2, 64):
        objective = PassKObjective(k, estimator=estimator)
        assert objective(rewards).isfinite().all()
        assert objective((rewards > 0.999).float()).isfinite().all()
    took = {}
    for name, values in (("small", small), ("large", rewards)):
        took[name] = math.inf
        for _ in range(10):  # the best of ten: machines have hiccups
            start = time.perf_counter()
            objective(values)
            took[name] = min(took[name], time.perf_counter() - start)
    assert took["large"] < 60 * took["small"]  # ten times the rollouts: n log n, not n²


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("value", [0.0, 1.0, 0.37])
def test_groups_in_which_all_are_worth_the_same_have_no_advantage(estimator, value):
    rewards = torch.full((3, 8), value)
    got = PassKObjective(4, estimator=estimator)(rewards)
    torch.testing.assert_close(got, torch.zeros(3, 8), atol=1e-5, rtol=0)


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
