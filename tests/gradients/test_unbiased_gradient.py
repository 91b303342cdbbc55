"""E[ŵ_k(c) ĝ] = w_k(p) ∇p, by enumeration of every outcome of a small softmax policy."""

import itertools

import pytest
import torch

from passk_guard import PassKObjective, prompt_weight, unbiased_prompt_weight
from passk_guard.objectives.advantages import pkpo_advantages

ACTIONS, RIGHT = 3, torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
LOGITS = torch.tensor([-0.4, 0.9, -1.1], dtype=torch.float64)


def enumerate_outcomes(n):
    """Every sequence of n actions, with its probability and the score of each action."""
    pi = LOGITS.softmax(0)
    scores = torch.eye(ACTIONS, dtype=torch.float64) - pi  # ∇ log π(a), (action, logit)
    outcomes = torch.tensor(list(itertools.product(range(ACTIONS), repeat=n)))
    return outcomes, pi[outcomes].prod(1), scores[outcomes]


def true_gradient(k):
    logits = LOGITS.clone().requires_grad_()
    p = (logits.softmax(0) * RIGHT).sum()
    (grad,) = torch.autograd.grad(p, logits)
    return prompt_weight(p.detach(), k) * grad


def mean_weighted_gradient(n, weight):
    outcomes, probability, scores = enumerate_outcomes(n)
    rewards = RIGHT[outcomes]
    gradient = ((rewards - rewards.mean(1, keepdim=True))[..., None] * scores).sum(1) / (n - 1)
    weights = weight(rewards.sum(1))
    return (probability[:, None] * weights[:, None] * gradient).sum(0)


@pytest.mark.parametrize("n", range(2, 8))
def test_weighted_gradient_is_exactly_unbiased_for_every_k(n):
    for k in range(1, n):
        got = mean_weighted_gradient(n, lambda c, k=k: unbiased_prompt_weight(c, n, k))
        assert (got - true_gradient(k)).abs().max() < 1e-10


def test_plug_in_weight_fails_the_same_test():
    n, k = 7, 4
    got = mean_weighted_gradient(n, lambda c: k * (1 - c / n) ** (k - 1))
    assert (got - true_gradient(k)).abs().max() > 1e-2


@pytest.mark.parametrize("n", range(2, 8))
def test_pkpo_advantages_are_exactly_unbiased(n):
    outcomes, probability, scores = enumerate_outcomes(n)
    for k in range(1, n + 1):
        advantages = pkpo_advantages(RIGHT[outcomes], k)
        got = (probability[:, None] * (advantages[..., None] * scores).mean(1)).sum(0)
        assert (got - true_gradient(k)).abs().max() < 1e-10


def test_mixed_objective_is_the_mixed_gradient():
    n, k, weight = 5, 3, 0.3
    outcomes, probability, scores = enumerate_outcomes(n)
    advantages = PassKObjective(k, pass1_weight=weight)(RIGHT[outcomes])
    got = (probability[:, None] * (advantages[..., None] * scores).mean(1)).sum(0)
    want = (1 - weight) * true_gradient(k) + weight * true_gradient(1)
    assert (got - want).abs().max() < 1e-10


@pytest.mark.parametrize("n", range(2, 8))
def test_maxrl_and_best_minus_second_are_unbiased_for_what_they_say(n):
    outcomes, probability, scores = enumerate_outcomes(n)
    for estimator, want in (
        ("maxrl", sum(true_gradient(i) / i for i in range(1, n))),
        ("best_minus_second", true_gradient(n)),
    ):
        advantages = PassKObjective(2, estimator=estimator)(RIGHT[outcomes])
        got = (probability[:, None] * (advantages[..., None] * scores).mean(1)).sum(0)
        assert (got - want).abs().max() < 1e-10


def test_analytic_follows_the_direction_of_pass_at_k_but_not_its_length():
    """Within one prompt all gradients are collinear: what differs is the weight, by design."""
    n, k = 6, 3
    outcomes, probability, scores = enumerate_outcomes(n)
    advantages = PassKObjective(k, estimator="analytic")(RIGHT[outcomes])
    got = (probability[:, None] * (advantages[..., None] * scores).mean(1)).sum(0)
    cosine = torch.nn.functional.cosine_similarity(got, true_gradient(k), dim=0)
    assert cosine > 1 - 1e-9
    assert (got - true_gradient(k)).abs().max() > 1e-3
