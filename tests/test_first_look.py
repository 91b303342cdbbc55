"""The first look: all reference prompts' gradients, tested once, before the first step."""

import math

import numpy as np
import pytest
import torch
from guarded_bandit import make_guard
from tiny import BanditPolicy

from passk_guard import HeldOutPool, PassKGuard, PassKGuardConfig, PassKObjective
from passk_guard.detection.cause import Cause
from passk_guard.objectives.mixes import AnchorMix

CONTEXTS = 256


class Against(PassKObjective):
    """An objective whose update is the opposite of pass@1's, so that the truth is known."""

    sign = -1.0

    def prompt_weight(self, correct, n, trainer_weight, training):
        return self.sign


class For(Against):
    sign = 1.0


def bandit():
    """Most contexts want one answer, so that pass@1 has a gradient to speak of."""
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    policy.right[: 7 * CONTEXTS // 8] = 0
    policy.features[:, 0] = 2.0
    policy.weight.data *= 0.3
    return policy


def guard_of(objective, said=None, **settings):
    policy = bandit()
    settings = {"k": 4, "reference_prompts": 192, "every": 5, "num_generations": 16, **settings}
    config = PassKGuardConfig(**settings)
    rows = [{"prompt": str(i)} for i in range(CONTEXTS)]
    say = (lambda text: None) if said is None else said.append
    return PassKGuard(
        policy,
        HeldOutPool(rows),
        config,
        isolation=policy.isolated,
        objective=objective,
        say=say,
        is_main=False,
    )


def test_a_conflict_is_known_and_acted_on_before_the_first_step():
    guard = guard_of(Against(4), action="mix")
    probe = guard.probe(0)
    assert probe.first.prompts == 192
    assert probe.first.opposed
    assert probe.alarm.fired == ("alignment",)
    assert (probe.alarm.cause, probe.cause) == (Cause.OPPOSED, Cause.OPPOSED)
    assert probe.cosine.high < 0
    assert guard.pass1_weight > 0
    assert guard.probe(5).first is None  # once


def test_an_update_that_helps_raises_nothing():
    guard = guard_of(For(4), action="mix")
    probe = guard.probe(0)
    assert probe.first.z > 3
    assert probe.alarm is None
    assert guard.pass1_weight == 0


@pytest.mark.parametrize("objective", [None, AnchorMix(4)])
def test_where_the_loss_is_out_of_sight_it_is_announced_and_nothing_done(objective, monkeypatch):
    said = []
    guard = guard_of(objective, said)
    # The stand-in has positive weights: let every gradient but one side's be its opposite.
    monkeypatch.setattr(
        "passk_guard.statistics.evidence.unbiased_prompt_weight",
        lambda correct, n, k: -np.ones(len(correct)),
    )
    if objective is not None:
        objective.prompt_weight = lambda *given: -1.0
    probe = guard.probe(0)
    assert not probe.update_seen
    assert probe.alarm is None
    told = [text for text in said if "out of sight" in text]
    assert len(told) == (1 if probe.first.opposed else 0)


def test_a_small_pool_is_all_reference():
    policy = BanditPolicy(32, dim=3, seed=5)
    config = PassKGuardConfig(k=4, reference_prompts=64, every=5)
    pool = HeldOutPool([{"prompt": str(i)} for i in range(32)])
    guard = PassKGuard(policy, pool, config, isolation=policy.isolated, objective=For(4))
    assert guard.probe(0).first.prompts == 32


def test_too_few_prompts_are_no_test():
    guard = make_guard()
    probe = guard.probe(0)
    assert probe.first.threshold == math.inf
    assert not probe.first.opposed


def test_adams_metric_is_not_there_yet_and_the_test_is_euclidean():
    policy = bandit()
    optimizer = torch.optim.Adam([policy.weight], lr=0.1)
    config = PassKGuardConfig(
        k=4, reference_prompts=192, every=5, num_generations=16, metric="adam"
    )
    pool = HeldOutPool([{"prompt": str(i)} for i in range(CONTEXTS)])
    guard = PassKGuard(
        policy,
        pool,
        config,
        isolation=policy.isolated,
        objective=Against(4),
        optimizer=lambda: optimizer,
        is_main=False,
    )
    first = guard.probe(0)
    assert first.first.opposed
    assert first.cosine is None  # no Euclidean Gramian is pooled with Adam's
    assert first.alarm.fired == ("alignment",)
