"""Prompts lost and won: exact tests, false discoveries, power; and why not from stored ratios."""

import math

import numpy as np
import pytest
import torch
from tiny import BanditPolicy

from passk_guard.rollouts.group import RolloutGroup
from passk_guard.statistics.turnover import PromptCounts, discoveries, loss_p_values, turnover

MARGIN, LEVEL, N = 0.1, 0.05, 16


def drawn(rng, p, n=N):
    return {row: (int(c), n) for row, c in enumerate(rng.binomial(n, p))}


def group(row, correct, n=N):
    ids = torch.zeros(n, 2, dtype=torch.long)
    success = (torch.arange(n) < correct).float()
    return RolloutGroup(row, ids, torch.ones_like(ids), torch.ones_like(ids), success)


def binomial(n, p):
    return np.array([math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)])


def normal_tail(z):
    return np.vectorize(lambda x: 0.5 * math.erfc(x / 2**0.5))(z)


def student_tail(t, df):
    """Chance of less than ``t``, summed up numerically."""
    x = np.linspace(-100, t, 20_001)
    constant = math.gamma((df + 1) / 2) / math.gamma(df / 2) / math.sqrt(df * math.pi)
    return float((constant * (1 + x**2 / df) ** (-(df + 1) / 2)).sum() * (x[1] - x[0]))


def fisher(c, d, n):
    """Chance of at least ``c`` of the ``c + d`` right ones among the first ``n`` of ``2 n``."""
    ways = [math.comb(n, k) * math.comb(n, c + d - k) for k in range(min(n, c + d) + 1)]
    return sum(ways[c:]) / math.comb(2 * n, c + d)


def rejects(p_values, before, after):
    """The largest excess of a chance to reject over its level, by enumeration."""
    n, later = (size - 1 for size in p_values.shape)
    chance = np.outer(binomial(n, before), binomial(later, after))
    return max(chance[p_values <= a].sum() / a for a in (0.1, 0.05, 0.01, 1e-3, 1e-4))


@pytest.mark.parametrize(("n", "later"), [(8, 8), (16, 16), (16, 7), (5, 12)])
def test_the_p_values_hold_for_every_pass_at_1(n, later):
    p_values = loss_p_values(n, later, MARGIN)
    assert ((p_values > 0) & (p_values <= 1)).all()
    c, d = np.arange(n + 1)[:, None] / n, np.arange(later + 1)[None] / later
    spread = np.sqrt(c * (1 - c) / n + d * (1 - d) / later).clip(1e-9)
    approximate = normal_tail((c - d - MARGIN) / spread)
    ours, normal = [], []
    for before in np.linspace(0, 1, 83):  # at the margin, and well within the hypothesis
        for after in {max(before - MARGIN, 0.0), before, min(before + 0.2, 1.0)}:
            ours.append(rejects(p_values, before, after))
            normal.append(rejects(approximate, before, after))
    assert max(ours) <= 1.01  # the grid of the unknown pass@1 is good to 1 %
    assert max(ours) > 0.5  # and they are not idle
    assert max(normal) > 5  # what is told here: the normal approximation fails


def test_without_a_margin_no_smaller_than_fisher_allows():
    """Barnard's test is never much weaker than Fisher's, which conditions on the sum."""
    p_values = loss_p_values(16, 16, 0.0)
    for c, d in [(14, 2), (16, 9), (8, 1), (12, 5)]:
        assert p_values[c, d] < 1.05 * fisher(c, d, 16)


@pytest.mark.parametrize("n", [8, 16])
def test_most_of_what_fell_is_named(n):
    rng = np.random.default_rng(0)
    before = np.full(512, 0.9)
    after = before.copy()
    after[:26] = 0.1
    named, false, won = [], [], []
    for _ in range(40):
        found = turnover(drawn(rng, before, n), drawn(rng, after, n))
        assert found.won == ()
        named.append(len([row for row in found.lost if row < 26]))
        false.append(sum(row >= 26 for row in found.lost) / max(len(found.lost), 1))
        again = turnover(drawn(rng, after, n), drawn(rng, before, n))
        assert again.lost == ()
        won.append(len([row for row in again.won if row < 26]))
    assert np.mean(named) >= 26 / 2
    assert np.mean(won) >= 26 / 2
    assert np.mean(false) <= LEVEL
    if n == 16:
        assert np.mean(named) > 24


WORLDS = {
    "nothing changed": lambda rng, p: p,
    "every prompt wanders by a few points": lambda rng, p: (
        p + rng.normal(0, 0.04, len(p)).clip(-0.1, 0.1)
    ),
    "all lose as much as does not count, some far more": lambda rng, p: np.where(
        p > 0.7, p - 0.6, p - MARGIN
    ),
    "many are won, none is lost": lambda rng, p: np.where(p < 0.5, p + 0.5, p),
}


@pytest.mark.parametrize("world", WORLDS)
def test_what_is_named_has_changed(world):
    rng = np.random.default_rng(1)
    false, named = [], 0
    for _ in range(60):
        before = rng.beta(0.6, 0.6, 512)
        after = WORLDS[world](rng, before).clip(0, 1)
        found = turnover(drawn(rng, before), drawn(rng, after))
        assert not set(found.lost) & set(found.won)
        for rows, change in ((found.lost, before - after), (found.won, after - before)):
            wrong = sum(change[row] <= MARGIN + 1e-9 for row in rows)
            false.append((wrong / max(len(rows), 1), bool(wrong)))
            named += len(rows)
    shares = np.array(false)
    assert shares[::2, 0].mean() <= LEVEL + 0.01
    assert shares[1::2, 0].mean() <= LEVEL + 0.01
    if world in ("nothing changed", "every prompt wanders by a few points"):
        assert named <= 2  # of 61 440 tests
    else:
        assert named > 1000


def test_without_the_rule_chance_alone_names_prompts():
    """Negative control: each prompt by itself at the same level, and with no margin."""
    rng = np.random.default_rng(2)
    p = np.full(512, 0.5)
    plain = loss_p_values(N, N, 0.0)
    one_by_one = [
        sum(plain[a[0], b[0]] <= LEVEL for a, b in zip(*counts, strict=True))
        for counts in ((drawn(rng, p).values(), drawn(rng, p).values()) for _ in range(10))
    ]
    assert np.mean(one_by_one) > 10


def test_stored_ratios_alone_take_another_way_of_writing_for_a_loss():
    """Of two right completions the policy comes to prefer the rarer: nothing is lost.

    Where only the other one was sampled, all right rollouts have the ratio 1/8. A paired t-test on
    their contributions is sure of a loss; the counts say nothing.
    """
    rng = np.random.default_rng(3)
    then, now = np.array([0.8, 0.1, 0.1]), np.array([0.1, 0.8, 0.1])  # right, right, wrong
    ratios, rewards = now / then, np.array([1.0, 1.0, 0.0])
    p_values, first, last = [], {}, {}
    for row in range(512):
        chosen = rng.choice(3, N, p=then)
        r = rewards[chosen]
        baseline = (r.sum() - r) / (N - 1)
        values = (r - baseline) * (ratios[chosen] - 1)
        spread = values.std(ddof=1) / N**0.5
        p_values.append(student_tail(values.mean() / spread, N - 1) if spread > 0 else 1.0)
        first[row] = int(r.sum()), N
        last[row] = int(rng.binomial(N, 0.9)), N
    assert len(discoveries(p_values, LEVEL)) > 25  # all of them false
    found = turnover(first, last)
    assert (found.lost, found.won, found.prompts) == ((), (), 512)


@pytest.mark.parametrize(("wrong", "least"), [(1, 0.04), (2, 0.0035)])
def test_what_ratios_can_tell_at_most(wrong, least):
    """The bound that the module's text names: a policy that has lost nothing looks like this.

    A wrong completion of probability q has gained ninefold, others of probability 8 q have gone:
    pass@1 is what it was. Chance shows ``wrong`` of the former and none of the latter.
    """
    q = np.linspace(0, 1 / 9, 20_001)
    chance = math.comb(N, wrong) * q**wrong * (1 - 9 * q) ** (N - wrong)
    assert chance.max() == pytest.approx(least, rel=0.07)
    assert chance.max() >= least
    assert chance.max() > LEVEL * 26 / 512  # what is asked of the last of 26 that are named


def test_the_counts_are_of_the_first_and_the_last_look():
    counts = PromptCounts()
    # A small pool is drawn through twice within the first look.
    assert counts.add([group(3, 16), group(4, 8), group(3, 15)]) is None
    found = counts.add([group(3, 2)])
    assert (found.lost, found.prompts, found.waiting) == ((3,), 1, 1)
    assert found == turnover({3: (31, 32), 4: (8, 16)}, {3: (2, 16)})
    found = counts.add([group(3, 15), group(5, 1)])  # it has come back
    assert (found.lost, found.prompts, found.waiting) == ((), 1, 2)


def test_the_counts_resume():
    counts = PromptCounts()
    counts.add([group(3, 16), group(4, 8)])
    counts.add([group(3, 2)])
    state = counts.state_dict()
    again = PromptCounts()
    again.load_state_dict(state)
    assert again.add([group(4, 8)]) == counts.add([group(4, 8)])


def test_a_guard_names_the_prompts_that_it_has_lost():
    from guarded_bandit import CONTEXTS, make_guard

    torch.manual_seed(0)
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    guard = make_guard(policy, num_generations=64, prompts_per_probe=64, action=lambda *_: None)
    first = guard.probe(0)
    assert first.turnover is None or first.turnover.lost == ()
    before = torch.stack([policy.success(x).detach() for x in range(CONTEXTS)])
    with torch.no_grad():
        policy.weight -= 3.0 * policy.weight
    after = torch.stack([policy.success(x).detach() for x in range(CONTEXTS)])
    assert guard.rescore(2).turnover is None
    found = guard.probe(5).turnover
    fallen = before - after
    assert found.prompts == CONTEXTS
    assert found.lost
    assert found.won
    assert min(float(fallen[row]) for row in found.lost) > MARGIN
    assert max(float(fallen[row]) for row in found.won) < -MARGIN
    resumed = make_guard(policy, num_generations=64, prompts_per_probe=64)
    state = guard.state_dict()
    resumed.load_state_dict(state)
    assert resumed.probe(10).turnover.prompts == CONTEXTS
