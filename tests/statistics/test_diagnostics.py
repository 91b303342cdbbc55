"""Entropy, concentration, lopsided weights, named states."""

import math

import numpy as np
import pytest
import torch
from guarded_bandit import CONTEXTS, ascend, make_guard
from tiny import BanditPolicy

from passk_guard.detection.named_states import StateWatch
from passk_guard.rollouts.group import counts
from passk_guard.rollouts.scores import score_all
from passk_guard.statistics.alignment import weighted_alignment
from passk_guard.statistics.diagnostics import diagnose


def counted(groups):
    return tuple(np.array(values) for values in counts(groups))


def test_entropy_and_top1_mass_of_a_known_policy():
    torch.manual_seed(0)
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    groups = policy.generate(None, list(range(CONTEXTS)) * 20, 16)
    found = diagnose(
        groups, score_all(policy, groups), counted(groups), 4, np.ones(len(groups)), None
    )
    logs = policy.pi(torch.arange(CONTEXTS)).detach()
    entropy = float(-(logs.exp() * logs).sum(1).mean())
    assert found.entropy == pytest.approx(entropy, rel=0.03)
    assert found.top1_mass == pytest.approx(float(logs.exp().max(1).values.mean()), rel=0.03)
    assert found.top1_mass >= math.exp(found.top_log_prob)  # Jensen
    assert found.normalised_agreement is None


def test_normalised_agreement_is_one_where_weights_do_not_matter():
    torch.manual_seed(0)
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    groups = [g for g in policy.generate(None, list(range(CONTEXTS)), 8) if g.has_signal]
    rng = np.random.default_rng(0)
    rows = 1.0 + rng.normal(size=(len(groups), 5))
    weights = np.full(len(groups), 7.0)
    update = weighted_alignment(rows @ rows.T, weights)
    found = diagnose(groups, score_all(policy, groups), counted(groups), 4, weights, update)
    assert found.normalised_agreement == pytest.approx(1.0)
    assert found.weight_ratio == pytest.approx(1.0)


def test_hard_weight_counts_prompts_with_at_most_one_right_rollout():
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    groups = policy.generate(None, [0, 1, 2], 4)
    for group, right in zip(groups, (0, 1, 4), strict=True):
        group.success[:] = (torch.arange(4) < right).float()
    found = diagnose(groups, score_all(policy, groups), counted(groups), 2, np.ones(3), None)
    # w_2 is estimated by 2 C(n-c, 1) / C(n, 1): 2, 1.5 and 0.
    assert found.hard_weight == pytest.approx(1.0)
    groups[2].success[:] = torch.tensor([1.0, 1.0, 0.0, 0.0])
    found = diagnose(groups, score_all(policy, groups), counted(groups), 2, np.ones(3), None)
    assert found.hard_weight == pytest.approx(3.5 / 4.5)


@pytest.mark.simulation
def test_pass1_training_to_the_end_is_named_exploration_collapse():
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    said = []
    guard = make_guard(policy, said.append, reference_prompts=48, watch="target_k", k=4)
    for step in range(0, 300, 5):
        guard.probe(step)
        ascend(policy, 1, 5, lr=60.0)
    collapse = [text for text in said if "exploration is collapsing" in text]
    assert len(collapse) == 1  # said once
    assert "no conflict" in collapse[0]
    assert "exploration collapse" in guard.states
    assert not any(probe.alarm for probe in guard.history)


def test_a_run_that_stands_still_has_no_state():
    guard = make_guard(reference_prompts=32)
    for step in range(0, 100, 5):
        guard.probe(step)
    assert guard.states == ()


def test_states_begin_and_end():
    guard = make_guard(reference_prompts=32)
    probe = guard.probe(0)
    watch = StateWatch()
    found = probe.solved_in_k, probe.diagnostics
    assert watch.update(0.95, *found) == ("vanishing signal",)
    assert watch.update(0.95, *found) == ()
    assert watch.update(0.85, *found) == ()
    assert watch.active == {"vanishing signal"}
    watch.update(0.5, *found)
    assert watch.active == set()
    other = StateWatch()
    other.load_state_dict(watch.state_dict())
    assert other.state_dict() == watch.state_dict()
