"""Paired change of pass@1 against the exact change of a bandit, and the traps it avoids."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from tiny import BanditPolicy, CausalLMPolicy, random_groups

from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.scores import score
from passk_guard.statistics.paired_drift import paired_change

CONTEXTS = 120


def moved(policy, size, seed=1):
    """The same bandit after a random step of the weights."""
    other = BanditPolicy(CONTEXTS, dim=3, tokens=policy.tokens, seed=5)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        step = torch.randn(policy.weight.shape, generator=generator, dtype=torch.float64)
        other.weight.copy_(policy.weight + size * step)
    return other


def mean_success(policy):
    return float(torch.stack([policy.success(x).detach() for x in range(CONTEXTS)]).mean())


@pytest.mark.parametrize("tokens", [1, 3])
def test_unbiased_and_honest_about_its_error(tokens):
    torch.manual_seed(0)
    policy = BanditPolicy(CONTEXTS, dim=3, tokens=tokens, seed=5)
    new = moved(policy, 0.1)
    truth = mean_success(new) - mean_success(policy)
    changes, errors = [], []
    rng = np.random.default_rng(0)
    for _ in range(300):
        ids = rng.integers(CONTEXTS, size=32).tolist()
        groups = policy.generate(None, ids, 8)
        change = paired_change(groups, score(policy, groups), score(new, groups))
        assert change.usable
        changes.append(change.change)
        errors.append(change.se)
    spread = np.std(changes, ddof=1)
    assert abs(np.mean(changes) - truth) < 3 * spread / np.sqrt(300)
    assert np.sqrt(np.mean(np.square(errors))) / spread == pytest.approx(1.0, abs=0.12)
    covered = np.abs(np.array(changes) - truth) < 1.96 * np.array(errors)
    assert 0.90 < covered.mean() < 0.985


def test_noise_of_scores_moves_nothing_where_it_is_told_what_was_sampled_from():
    """Rollouts of 200 tokens that are always right, scored twice with rounding of its own each."""
    generator = torch.Generator().manual_seed(0)
    found = {"told": [], "as scored": [], "not told": []}
    for _ in range(40):
        groups, before, after = [], [], []
        for row in range(20):
            tokens = torch.randint(5, (8, 200), generator=generator)
            noisy = (0.02 * torch.randn(2, 8, 200, 5, generator=generator)).log_softmax(-1)
            old, new = noisy.gather(-1, tokens.expand(2, -1, -1)[..., None]).squeeze(-1)
            ones = torch.ones_like(tokens)
            right = (torch.rand(8, generator=generator) < 0.9).float()
            right[0] = 1.0
            groups.append(RolloutGroup(row, tokens, ones, ones, right))
            before.append(old)
            after.append(new)
        uniform = torch.full((8, 200), 1 / 5).log()
        told = {
            "told": [uniform] * 20,
            "as scored": before,  # as if the scores' distribution had been sampled from
            "not told": [None] * 20,
        }
        for name, sampled in told.items():
            those = [replace(g, sampling_log_probs=q) for g, q in zip(groups, sampled, strict=True)]
            found[name].append(paired_change(those, before, after).change)
    error = {name: np.std(values, ddof=1) / np.sqrt(40) for name, values in found.items()}
    assert error["not told"] < error["told"] / 2  # what is told is used
    assert abs(np.mean(found["told"])) < 3 * error["told"]
    assert abs(np.mean(found["not told"])) < 3 * error["not told"]
    assert np.mean(found["as scored"]) > 5 * error["as scored"]  # a gain out of nothing


def test_an_engine_that_samples_something_else_gives_no_weights():
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    groups = policy.generate(None, list(range(20)), 8)
    for group in groups:
        group.success[:4], group.success[4:] = 1.0, 0.0
    other = [
        replace(g, sampling_log_probs=g.sampling_log_probs * (1 + i % 8))
        for i, g in enumerate(groups)
    ]
    unknown = [replace(group, sampling_log_probs=None) for group in groups]
    holes = [replace(g, sampling_log_probs=g.sampling_log_probs / 0) for g in groups]
    before, after = score(policy, groups), score(moved(policy, 0.1), groups)
    baselines = [paired_change(g, before, after).baseline for g in (other, unknown, holes)]
    assert all(torch.equal(b, baselines[0]) for b in baselines)
    changes = [paired_change(g, before, after).change for g in (other, unknown, groups)]
    assert changes[0] == changes[1] != changes[2]


def test_a_policy_that_moved_too_far_is_unusable_not_clipped():
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    groups = policy.generate(None, list(range(20)), 8)
    change = paired_change(groups, score(policy, groups), score(moved(policy, 5.0), groups))
    assert change.effective_sample_size < 0.5
    assert not change.usable


@pytest.mark.simulation
def test_still_unbiased_and_honest_where_the_first_order_is_not():
    """A large step: effective sample size near 0.8, where the first order form is off."""
    torch.manual_seed(0)
    policy = BanditPolicy(CONTEXTS, dim=3, tokens=3, seed=5)
    new = moved(policy, 0.35, seed=4)
    truth = mean_success(new) - mean_success(policy)
    rng = np.random.default_rng(0)
    changes, errors, first_order, sizes = [], [], [], []
    for _ in range(300):
        groups = policy.generate(None, rng.integers(CONTEXTS, size=64).tolist(), 8)
        before, after = score(policy, groups), score(new, groups)
        change = paired_change(groups, before, after)
        changes.append(change.change)
        errors.append(change.se)
        sizes.append(change.effective_sample_size)
        per_prompt = [
            0.0
            if b is None
            else float((g.centred_success() * (a - b).double().expm1().sum(-1)).mean())
            for g, b, a in zip(groups, before, after, strict=True)
        ]
        first_order.append(np.mean(per_prompt))
    assert 0.5 < np.mean(sizes) < 0.9
    error = np.std(changes, ddof=1) / np.sqrt(300)
    assert abs(np.mean(changes) - truth) < 3 * error
    covered = np.abs(np.array(changes) - truth) < 1.96 * np.array(errors)
    assert 0.90 < covered.mean() < 0.985
    error = np.std(first_order, ddof=1) / np.sqrt(300)
    assert abs(np.mean(first_order) - truth) > 5 * error


def test_nothing_right_is_unusable_and_finite():
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    groups = policy.generate(None, [1, 2, 3], 4)
    for group in groups:
        group.success[:] = 0.0
    change = paired_change(groups, score(policy, groups), score(policy, groups))
    assert (change.change, change.usable) == (0.0, False)


def test_its_noise_is_that_of_its_rollouts_and_so_is_its_covariance_with_their_level():
    """Over draws of the same prompts' rollouts, of pairs with an earlier baseline, too."""
    torch.manual_seed(0)
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    new, rows = moved(policy, 0.15), list(range(40))
    p = torch.stack([policy.success(x).detach() for x in rows])
    for n, earlier in ((8, False), (2, True)):
        changes, levels, noise, covariance = [], [], [], []
        for _ in range(300):
            groups = policy.generate(None, rows, n)
            if earlier:
                groups = [replace(g, baseline=float(b)) for g, b in zip(groups, p, strict=True)]
            found = paired_change(groups, score(policy, groups), score(new, groups))
            changes.append(found.per_prompt)
            levels.append(torch.tensor([g.correct / n for g in groups]))
            noise.append(found.noise)
            covariance.append(found.covariance)
        told, level = torch.stack(changes), torch.stack(levels).double()
        found = float(torch.stack(noise).mean()) / float(told.var(0).mean())
        assert 0.9 < found < 1.4  # the jackknife errs on the large side
        together = ((told - told.mean(0)) * (level - level.mean(0))).sum(0) / 299
        error = float(told.var(0).mean() * level.var(0).mean() / 300 / 40) ** 0.5
        assert float(torch.stack(covariance).mean()) == pytest.approx(
            float(together.mean()), abs=5 * error
        )


@pytest.mark.parametrize("at_once", [None, 3, 8, 20, 1000])
def test_packing_prompts_into_one_forward_changes_no_score(tiny_lm, at_once):
    model = tiny_lm().eval()
    policy, groups = CausalLMPolicy(model), random_groups(7, 5)
    got = score(policy, groups, PassSize(at_once))
    for group, scores in zip(groups, got, strict=True):
        assert (scores is None) == (group.correct == 0)
        if scores is not None:
            alone = policy.log_probs(*group.tokens).detach()
            torch.testing.assert_close(scores, alone, rtol=0, atol=2e-6)


def answers(right, p, q, mu=None):
    """One prompt whose rollouts are one token: right with p and then q. Log-probs of both.

    Sampled from what says the right one with mu, or from what is not told.
    """
    right = torch.tensor(right, dtype=torch.float64)
    one = torch.ones(len(right), 1, dtype=torch.long)
    told = torch.tensor([0.5 if mu is None else mu, p, q], dtype=torch.float64)
    sampled, *scores = (torch.where(right > 0, x, 1 - x).log()[:, None] for x in told)
    return RolloutGroup(
        0, one, one, one, right, sampling_log_probs=None if mu is None else sampled
    ), *scores


@pytest.mark.parametrize("told", ["p", "near", None])
@pytest.mark.parametrize(("p", "q"), [(0.9, 0.8), (0.2, 0.25), (0.6, 0.3)])
def test_exact_by_enumeration(p, q, told):
    """Over all draws of five rollouts the mean is Δp."""
    mu = {"p": p, "near": p - 0.05, None: p}[told]  # what is sampled from, and scored as p
    mean = {"one": 0.0, "earlier": 0.0, "own": 0.0}
    for right in product((0, 1), repeat=5):
        chance = mu ** sum(right) * (1 - mu) ** (5 - sum(right))
        group, before, after = answers(right, p, q, mu if told else None)
        weight = 1.0 if group.sampling_log_probs is None else before - group.sampling_log_probs
        gain = (torch.as_tensor(weight).exp() if told else 1.0) * ((after - before).exp() - 1)
        gain = gain[:, 0]
        found = paired_change([group] * 2, [before] * 2, [after] * 2)
        # The estimate for one prompt, whatever the effective sample size says.
        share = (group.success.sum() - group.success) / 4
        b = torch.minimum(share, 1 - share) if told else share
        assert float(found.per_prompt[0]) == pytest.approx(
            float(((group.success - b) * gain).mean()), abs=1e-6
        )
        known = replace(group, baseline=0.7)
        found_earlier = paired_change([known] * 2, [before] * 2, [after] * 2)
        mean["earlier"] += chance * float(found_earlier.per_prompt[0])
        mean["one"] += chance * float(found.per_prompt[0])
        rate = group.success.mean()
        mean["own"] += chance * float(
            ((group.success - torch.minimum(rate, 1 - rate)) * gain).mean()
        )
    assert mean["one"] == pytest.approx(q - p, abs=1e-6)
    assert mean["earlier"] == pytest.approx(q - p, abs=1e-6)
    assert abs(mean["own"] - (q - p)) > 0.005  # the rollout itself in its baseline: biased


def test_a_loss_on_prompts_that_were_always_right_is_seen():
    """Each of 400 prompts at .99 falls to .95, by answers that none of 12 rollouts may hold."""
    rng = np.random.default_rng(0)
    found = {0.99: [], None: []}
    for _ in range(12):
        for mu in found:
            drawn = [answers(rng.random(12) < 0.99, 0.99, 0.95, mu) for _ in range(400)]
            found[mu].append(paired_change(*map(list, zip(*drawn, strict=True))))
    error = {mu: np.array([c.change + 0.04 for c in all_]) for mu, all_ in found.items()}
    assert all(change.usable for change in found[0.99])
    assert np.sqrt(np.mean(error[0.99] ** 2)) < 0.2 * np.sqrt(np.mean(error[None] ** 2))
    assert np.mean(np.abs(error[None])) > 0.002
