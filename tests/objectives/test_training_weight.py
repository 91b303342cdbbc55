"""What training in groups of G weighs a prompt with, from a probe's n: against enumeration."""

import itertools
import math

import pytest
import torch

from passk_guard import PassKObjective
from passk_guard.objectives.advantages import leave_one_out_advantages
from passk_guard.objectives.estimators import ESTIMATORS
from passk_guard.objectives.mixes import AnchorMix, TrainerMix
from passk_guard.objectives.training_weight import (
    TrainingGroups,
    trainer_prompt_weight,
    training_prompt_weight,
)

RATES = [0.02, 0.05, 0.3, 0.5, 0.9]


def binomial(n, p):
    return [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]


def trained(advantages, size, p):
    """T(p): mean_j A_j times the score's component along ∇p, over all 2^G outcomes of a group."""
    total = 0.0
    for outcome in itertools.product([0.0, 1.0], repeat=size):
        rewards = torch.tensor([outcome], dtype=torch.float64)
        chance = math.prod(p if r else 1 - p for r in outcome)
        scores = torch.tensor([1 / p if r else -1 / (1 - p) for r in outcome])
        total += chance * float((advantages(rewards)[0] * scores).mean())
    return total


def probed(weight, n, p):
    """E[ω(c) ĝ] along ∇p: ĝ has mean c(n-c)/(n(n-1)) / (p(1-p)) given c."""
    chances = binomial(n, p)
    return sum(
        chances[c] * weight(c) * c * (n - c) / (n * (n - 1)) / (p * (1 - p)) for c in range(1, n)
    )


def group_scaled(advantages):
    """As GRPO does: divided by the standard deviation of the group's rewards."""

    def scaled(rewards):
        return advantages(rewards) / (rewards.std(-1, keepdim=True) + 1e-4)

    return scaled


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.35])
@pytest.mark.parametrize("n", [7, 12])
def test_a_probe_weighs_as_training_in_smaller_groups_does(estimator, scaled, share, n):
    size, k = 6, 3
    objective = PassKObjective(k, share, estimator)
    advantages = group_scaled(objective) if scaled else objective
    training = TrainingGroups(size, scaled)
    for p in RATES:
        got = probed(lambda c: objective.prompt_weight(c, n, None, training), n, p)
        assert got == pytest.approx(trained(advantages, size, p), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("estimator", ["best_minus_second", "maxrl", "analytic"])
def test_taking_the_weights_at_the_probes_size_fails_the_same_test(estimator):
    """The negative control: groups of n stand in for groups of G."""
    n, size, p = 12, 6, 0.05
    objective = PassKObjective(3, estimator=estimator)
    got = probed(lambda c: objective.prompt_weight(c, n, None, TrainingGroups(n)), n, p)
    assert abs(got / trained(objective, size, p) - 1) > 0.1


def test_figures_by_hand():
    """Groups of 8, probes of 16: best-minus-second is 8 (1-p)^7, MaxRL Σ_{i<8} (1-p)^(i-1)."""
    training = TrainingGroups(8)
    for estimator, p, want in [
        ("best_minus_second", 0.3, 8 * 0.7**7),
        ("maxrl", 0.05, (1 - 0.95**7) / 0.05),
    ]:
        objective = PassKObjective(8, estimator=estimator)
        got = probed(lambda c, o=objective: o.prompt_weight(c, 16, None, training), 16, p)
        assert got == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("size", [6, 16, 64])
def test_pkpo_does_not_depend_on_the_training_groups(size):
    objective, p = PassKObjective(4), 0.2
    weight = {c: objective.prompt_weight(c, 8, None, TrainingGroups(size)) for c in range(1, 8)}
    assert probed(weight.get, 8, p) == pytest.approx(4 * (1 - p) ** 3)


@pytest.mark.parametrize("n", [4, 6, 12, 16])
@pytest.mark.parametrize("p", RATES)
def test_maxrl_in_larger_groups_is_a_plug_in_with_the_stated_bias(n, p):
    size = 12
    objective = PassKObjective(3, estimator="maxrl")
    got = probed(lambda c: objective.prompt_weight(c, n, None, TrainingGroups(size)), n, p)
    truth = sum((1 - p) ** (i - 1) for i in range(1, size))
    bias = -sum((1 - p) ** (i - 1) for i in range(n, size))
    assert got == pytest.approx(truth + bias)
    assert (bias == 0) is (n >= size)


@pytest.mark.parametrize("n", [4, 5, 8, 16])
def test_the_hosts_own_group_scale_is_that_of_its_training_groups(n):
    """The trainer's advantages on a probe are scaled in groups of n, in training in groups of 4."""
    size, training = 4, TrainingGroups(4, scaled=True)

    def seen(c):
        rewards = torch.tensor([[1.0] * c + [0.0] * (n - c)], dtype=torch.float64)
        advantages = group_scaled(leave_one_out_advantages)(rewards)[0] * (n - 1) / n
        return (n - 1) / n * float(advantages[0] - advantages[-1])

    for p in RATES:
        want = trained(group_scaled(leave_one_out_advantages), size, p)
        got = probed(lambda c: trainer_prompt_weight(seen(c), training, c, n), n, p)
        assert got * n / (n - 1) == pytest.approx(want)
        if n > 5 and p == 0.05:  # the negative control: as seen in the probe
            assert abs(probed(seen, n, p) * n / (n - 1) / want - 1) > 0.05


def test_a_trainer_that_does_not_scale_groups_is_left_as_it_was_seen():
    assert trainer_prompt_weight(0.9, TrainingGroups(4), 2, 8) == 0.9
    assert trainer_prompt_weight(0.9, None, 2, 8) == 0.9
    same = trainer_prompt_weight(0.9, TrainingGroups(8, scaled=True), 2, 8)
    assert same == pytest.approx(0.9)


def test_the_mix_into_the_trainers_own_takes_its_groups():
    mix, training = TrainerMix(8), TrainingGroups(4, scaled=True)
    own = trainer_prompt_weight(1.3, training, 2, 8)
    assert mix.prompt_weight(2, 8, 1.3, training) == own != 1.3
    mix.pass1_weight, mix.scale = 0.25, 2.0
    assert mix.prompt_weight(2, 8, 1.3, training) == pytest.approx(0.75 * own + 0.25 * 2)


def test_the_anchors_term_counts_with_its_scale_and_its_cap():
    """What is tested is proportional to what is applied: L_host + factor * L_1."""
    mix = AnchorMix(2)
    alone = mix.prompt_weight(1, 4, None, None)
    for share, scale in [(0.5, 3.0), (0.2, 0.1), (1.0, 2.0)]:
        mix.pass1_weight, mix.scale = share, scale
        applied = (alone + mix.factor) / alone
        kept = 1 - min(share, 0.95)
        assert mix.prompt_weight(1, 4, None, None) / (kept * alone) == pytest.approx(applied)


def test_group_size_is_noted_as_the_objective_is_called():
    objective = PassKObjective(3, estimator="maxrl")
    assumed = objective.prompt_weight(1, 12, None, None)
    objective(torch.tensor([[1.0, 0, 0, 0, 0, 0]]))
    assert objective.group_size == 6
    noted = objective.prompt_weight(1, 12, None, None)
    assert noted == objective.prompt_weight(1, 12, None, TrainingGroups(6)) != assumed
    assert PassKObjective(3, estimator="maxrl", group_size=6).prompt_weight(
        1, 12, None, None
    ) == pytest.approx(noted)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("k", [1, 2, 5])
def test_least_group_is_the_smallest_with_any_signal(estimator, k):
    """Below it every advantage is 0, whatever the rewards; at it some are not."""
    objective = PassKObjective(k, estimator=estimator)
    least = objective.least_group
    function = ESTIMATORS[estimator].advantages
    one_right = torch.eye(least, dtype=torch.float64)[:1]
    assert function(one_right, k).any()
    assert objective(one_right).any()
    if least - 1 >= max(k, 1):
        all_outcomes = torch.tensor(list(itertools.product([0.0, 1.0], repeat=least - 1)))
        assert not function(all_outcomes, k).any()
    with pytest.raises(ValueError, match=f"groups of at least {least} rollouts, got {least - 1}"):
        objective(torch.zeros(3, least - 1))
    with pytest.raises(ValueError, match=f"groups of at least {least} rollouts"):
        PassKObjective(k, estimator=estimator, group_size=least - 1)


def test_a_weight_of_one_size_needs_no_table():
    """Leave-one-out advantages weigh every prompt alike, whatever the sizes."""
    for size, n in [(4, 8), (8, 8), (16, 8)]:
        for c in range(1, n):
            weight = training_prompt_weight(leave_one_out_advantages, TrainingGroups(size), c, n)
            assert weight == pytest.approx(1.0)
