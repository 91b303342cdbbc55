"""Five hundred tokens: what holds at two tokens must hold there, and the known traps must not."""

import numpy as np
import pytest
import torch
from coins import CoinPolicy

from passk_guard.rollouts.scores import score
from passk_guard.statistics.alignment import estimate_alignment
from passk_guard.statistics.paired_drift import paired_change

CONTEXTS, TOKENS = 400, 500


def moved(policy, size):
    other = CoinPolicy(CONTEXTS, policy.tokens)
    with torch.no_grad():
        other.theta.copy_(policy.theta + size / 2)
    return other


def styled(groups, scores, logits, seed):
    """Each token also shows one of eight styles, which no reward looks at."""
    rng = torch.Generator().manual_seed(seed)
    old, new = logits
    before, after = [], []
    for group, (b, a) in zip(groups, scores, strict=True):
        if b is None:
            before.append(None)
            after.append(None)
            continue
        style = torch.multinomial(old.exp(), b.numel(), replacement=True, generator=rng)
        style = style.view(b.shape)
        before.append(b + old[style] * group.completion_mask)
        after.append(a + new[style] * group.completion_mask)
    return before, after


def clipped_change(groups, before, after):
    """What PPO's clipped surrogate would say of the same ratios."""
    changes = []
    for group, b, a in zip(groups, before, after, strict=True):
        if b is None:
            changes.append(0.0)
            continue
        advantage, ratio = group.centred_success().double()[:, None], (a - b).exp()
        clipped = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
        changes.append(float((clipped - advantage).sum(1).mean()))
    return float(np.mean(changes))


@pytest.mark.parametrize(("style", "usable"), [(0.02, True), (0.1, False), (0.3, False)])
def test_drift_holds_or_says_nothing_where_clipping_would_invent_a_loss(style, usable):
    """Tokens that no reward looks at move a lot; the sequence ratio then is of no use."""
    torch.manual_seed(0)
    policy = CoinPolicy(CONTEXTS, TOKENS)
    new = moved(policy, 0.5)
    truth = float((new.success() - policy.success()).detach().mean())
    rng = torch.Generator().manual_seed(1)
    old = torch.randn(8, generator=rng, dtype=torch.float64).log_softmax(0)
    shift = style * torch.randn(8, generator=rng, dtype=torch.float64)
    logits = old, (old + shift).log_softmax(0)
    ours, errors, clipped = [], [], []
    for repeat in range(40):
        ids = torch.randint(CONTEXTS, (32,)).tolist()
        groups = policy.generate(None, ids, 8)
        scores = list(zip(score(policy, groups), score(new, groups), strict=True))
        before, after = styled(groups, scores, logits, repeat)
        change = paired_change(groups, before, after)
        assert change.usable == usable
        ours.append(change.change)
        errors.append(change.se)
        clipped.append(clipped_change(groups, before, after))
    error = np.std(ours, ddof=1) / np.sqrt(40)
    if usable:
        assert abs(np.mean(ours) - truth) < 3 * error
        assert np.mean(np.abs(np.array(ours) - truth) < 1.96 * np.array(errors)) > 0.85
    if style == 0.3:
        assert np.mean(clipped) < truth - 0.01


def test_alignment_covers_at_five_hundred_tokens():
    torch.manual_seed(0)
    policy = CoinPolicy(CONTEXTS, TOKENS)
    p, gradients = policy.gradients()
    weights = 4 * (1 - p) ** 3
    truth = float((weights @ gradients / CONTEXTS) @ gradients.mean(0))
    hits = []
    for _ in range(300):
        rows, correct = policy.sampled(torch.randint(CONTEXTS, (64,)), 8)
        found = estimate_alignment(rows @ rows.T, correct.numpy(), 8, 4)
        hits.append((found.low < truth < found.high, abs(found.inner - truth) < 1.96 * found.se))
    ours, symmetric = np.mean(hits, 0)
    assert 0.92 < ours < 0.99
    assert symmetric < 0.9  # four directions only: the estimate is skewed
