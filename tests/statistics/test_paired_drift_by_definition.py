"""Prompts that are done all at once, beside the definition, rollout by rollout."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from tiny import BanditPolicy

from passk_guard.rollouts import batching, scores
from passk_guard.statistics.paired_drift import paired_change

SIZES = (16, 2, 3, 7)


def batch(tokens, sigma):
    """Prompts of several sizes and widths, some not told, some without a score; then and now."""
    torch.manual_seed(3)
    policy = BanditPolicy(24, tokens=tokens)
    policy.weight.data *= 0.3
    later = copy.deepcopy(policy)
    later.weight.data += sigma * torch.randn_like(later.weight)
    groups = policy.generate(None, list(range(24)), 16)
    groups = [group.first(SIZES[i % 4]) for i, group in enumerate(groups)]
    for i in range(0, 24, 5):
        groups[i] = replace(groups[i], sampling_log_probs=None)
    for i in range(0, 24, 2):
        groups[i] = wider(groups[i])
    before, after = scores.score(policy, groups), scores.score(later, groups)
    noise = [None if old is None else 0.02 * torch.randn(old.shape) for old in before]
    before = [None if old is None else old + e for old, e in zip(before, noise, strict=True)]
    assert None in before
    return groups, before, after


def wider(group):
    """With two tokens of padding, of which a score says anything."""
    more = torch.zeros(group.n, 2, dtype=torch.long)
    told = group.sampling_log_probs
    return replace(
        group,
        input_ids=torch.cat([group.input_ids, more], 1),
        attention_mask=torch.cat([group.attention_mask, more], 1),
        completion_mask=torch.cat([group.completion_mask, more], 1),
        sampling_log_probs=None if told is None else torch.cat([told, more + math.nan], 1),
    )


def gains(group, old, new):
    """Of each rollout: ``w (ρ - 1)``."""
    found = []
    for j in range(group.n):
        log_w, log_rho = 0.0, 0.0
        for t in range(group.input_ids.shape[1]):
            if group.completion_mask[j, t]:
                told = group.sampling_log_probs
                log_w += 0.0 if told is None else float(old[j, t]) - float(told[j, t])
                log_rho += float(new[j, t]) - float(old[j, t])
        found.append(math.exp(log_w) * math.expm1(log_rho))
    return found


def estimate(right, gain, told):
    """``mean_j (r_j - b_j) gain_j``, b of the others."""
    total = 0.0
    for j, r in enumerate(right):
        others = [other for i, other in enumerate(right) if i != j]
        p = sum(others) / len(others)
        total += (r - (min(p, 1 - p) if told else p)) * gain[j]
    return total / len(right)


@pytest.mark.parametrize("tokens_at_once", [16_384, 100])
@pytest.mark.parametrize(("sigma", "usable"), [(0.1, True), (3.0, False)])
def test_all_at_once_is_each_by_itself(sigma, usable, tokens_at_once, monkeypatch):
    groups, before, after = batch(2, sigma)
    monkeypatch.setattr(batching, "_MOST", tokens_at_once)
    found = paired_change(groups, before, after)
    assert found.usable == usable
    noise = []
    for i, (group, old, new) in enumerate(zip(groups, before, after, strict=True)):
        if old is None:
            assert (found.per_prompt[i], found.seen[i], found.baseline[i]) == (0, 1, 0)
            noise.append(0.0)
            continue
        right, told = group.success.tolist(), group.sampling_log_probs is not None
        gain = gains(group, old, new)
        assert float(found.per_prompt[i]) == pytest.approx(estimate(right, gain, told), abs=1e-6)
        assert float(found.seen[i]) == pytest.approx(1 + sum(gain) / group.n, abs=1e-6)
        noise.append(jackknife(right, gain, told))
    assert found.noise.tolist() == pytest.approx(noise, rel=1e-5, abs=1e-12)


def jackknife(right, gain, told):
    """Variance of the mean: what it becomes without each rollout in turn."""
    n = len(right)
    if n == 2:
        terms = [(right[j] - right[1 - j]) * gain[j] for j in (0, 1)]
        return (terms[0] - terms[1]) ** 2 / 2 / n
    means = []
    for left_out in range(n):
        rest = [j for j in range(n) if j != left_out]
        means.append(estimate([right[j] for j in rest], [gain[j] for j in rest], told))
    middle = sum(means) / n
    return (n - 1) / n * sum((mean - middle) ** 2 for mean in means)
