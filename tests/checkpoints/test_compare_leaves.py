"""Policies that are compared are left as they were, and not held longer than needed."""

import gc
import weakref

import torch
from tiny import BanditPolicy

from passk_guard import compare
from passk_guard.checkpoints.sampled_counts import LazyPolicy
from passk_guard.runtime.progress import silent

ROWS = [{"prompt": str(i)} for i in range(32)]


def bandit(step=0.0):
    policy = BanditPolicy(32, seed=5)
    with torch.no_grad():
        policy.weight += step
    return policy


def both(a, b):
    return compare(a, b, prompts=ROWS, num_generations=4, progress=silent)


def test_the_first_one_is_let_go_before_the_second_is_loaded():
    """Two models need not fit into memory, nor wait for the garbage collector."""
    alive = []

    def load():
        gone = [one() is None for one in alive]
        policy = bandit(0.02 * len(alive))
        alive.append(weakref.ref(policy))
        assert all(gone)
        return policy

    gc.disable()
    try:
        both(LazyPolicy("a", load), LazyPolicy("b", load))
    finally:
        gc.enable()
    assert len(alive) == 2
    assert [one() is None for one in alive] == [True, True]


def test_both_policies_and_random_numbers_are_left_as_they_were():
    a, b = bandit(), bandit(0.02)
    for policy, training in ((a, True), (b, False)):
        policy.drop = torch.nn.Dropout()
        policy.drop.train(training)
        policy.weight.grad = torch.full_like(policy.weight, 3.0)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    both(a, b)
    assert torch.equal(torch.rand(2), expected)
    assert (a.drop.training, b.drop.training) == (True, False)
    assert all((policy.weight.grad == 3.0).all() for policy in (a, b))
