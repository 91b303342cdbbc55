"""Prompts named as lost: p-values by enumeration, false discoveries and power by simulation."""

import math

import numpy as np
import pytest
from barnard import loss_p_values

from passk_guard.statistics import lost_prompts
from passk_guard.statistics.lost_prompts import candidate_p_values, changed_prompts, discoveries

MARGIN, LEVEL = 0.1, 0.05


def binomial(n, p):
    return np.array([math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)])


def candidates(n, later, margin):
    """All pairs of counts whose share fell by more than the margin."""
    pairs = [(c, d) for c in range(n + 1) for d in range(later + 1)]
    return np.array([(c, d) for c, d in pairs if c * later - d * n > margin * n * later + 1e-9])


def excess(counts, p_values, n, later, before, after):
    """The largest excess of a chance to reject, given a candidate, over its level."""
    chance = np.outer(binomial(n, before), binomial(later, after))[counts[:, 0], counts[:, 1]]
    if chance.sum() < 1e-12:
        return 0.0
    ranks = np.argsort(p_values, kind="stable")
    ordered = p_values[ranks]
    upto = np.searchsorted(ordered, ordered, side="right") - 1
    share = (chance[ranks].cumsum() / chance.sum())[upto]
    return float((share / ordered)[ordered < 1].max(initial=0.0))


def nulls(margin):
    """At the margin, within it, and where nothing changed."""
    for before in np.linspace(0, 1, 31):
        for after in {max(before - margin, 0.0), max(before - margin / 2, 0.0), before, 1.0}:
            if before - after <= margin + 1e-9:
                yield before, min(max(after, 0.0), 1.0)


@pytest.mark.parametrize("margin", [0.0, MARGIN])
@pytest.mark.parametrize(("n", "later"), [(4, 4), (16, 16), (16, 7), (3, 20), (20, 3)])
@pytest.mark.parametrize("large", [False, True])
def test_the_p_values_hold_for_every_pass_at_1(n, later, margin, large, monkeypatch):
    if large:  # as for thousands of rollouts, where no table of all pairs is made
        monkeypatch.setattr(lost_prompts, "_LARGE", 0)
    counts = candidates(n, later, margin)
    p_values = candidate_p_values(n, later, counts, margin)
    assert ((p_values > 0) & (p_values <= 1)).all()
    found = [excess(counts, p_values, n, later, *null) for null in nulls(margin)]
    assert max(found) <= 1.01  # the grid of the unknown pass@1 is good to 1 %
    assert max(found) > 0.9  # and they are not idle
    # What makes the difference: p-values that are not conditional do not hold among candidates.
    plain = loss_p_values(n, later, margin)[counts[:, 0], counts[:, 1]]
    assert max(excess(counts, plain, n, later, *null) for null in nulls(margin)) > 1.5


def test_who_is_no_candidate_is_told_nothing():
    p_values = candidate_p_values(16, 16, np.array([[8, 8], [8, 7], [16, 2]]), MARGIN)
    assert p_values[:2].tolist() == [1, 1]
    assert p_values[2] < 1e-4


def test_of_the_lost_no_more_than_the_bound_are_wrong():
    """Worst case: a few are lost, and all others have fallen by just the margin."""
    rng, wrong, naive, found = np.random.default_rng(3), [], [], 0
    before = np.full(400, 0.7)
    after = np.where(np.arange(400) < 12, 0.05, before - MARGIN)
    unconditional = loss_p_values(16, 16, MARGIN)
    for _ in range(400):
        c, d = rng.binomial(16, before), rng.binomial(16, after)
        lost = np.array(changed_prompts(c, 16, d, 16).lost, dtype=int)
        wrong.append((lost >= 12).sum() / max(len(lost), 1))
        found += (lost < 12).sum()
        # The negative control: the same candidates, p-values that do not know that they are.
        seem = np.flatnonzero((c - d) / 16 > MARGIN)
        named = seem[discoveries(unconditional[c, d][seem].tolist(), LEVEL)]
        naive.append((named >= 12).sum() / max(len(named), 1))
    assert np.mean(wrong) <= LEVEL + 3 * np.std(wrong) / math.sqrt(400)
    assert np.mean(naive) - 3 * np.std(naive) / math.sqrt(400) > LEVEL
    assert found > 400 * 6


def test_unequal_rollouts_keep_the_bound():
    rng, wrong, found = np.random.default_rng(4), [], 0
    before = np.full(200, 0.8)
    after = np.where(np.arange(200) < 20, 0.05, before - MARGIN)
    for _ in range(15):
        n, m = rng.integers(8, 17, size=(2, 200))
        lost = np.array(changed_prompts(rng.binomial(n, before), n, rng.binomial(m, after), m).lost)
        wrong.append((lost >= 20).sum() / max(len(lost), 1))
        found += (lost < 20).sum()
    assert np.mean(wrong) <= LEVEL + 3 * np.std(wrong) / math.sqrt(15)
    assert found > 15 * 5


def test_where_most_have_not_changed_more_are_found_than_over_all_prompts():
    rng, ours, over_all = np.random.default_rng(4), 0, 0
    before = np.where(np.arange(5000) < 50, 0.8, (np.arange(5000) % 2) * 1.0)
    after = np.where(np.arange(5000) < 50, 0.25, before)
    for _ in range(10):
        c, d = rng.binomial(16, before), rng.binomial(16, after)
        found = changed_prompts(c, 16, d, 16)
        assert found.won == ()
        assert set(found.lost) <= set(range(50))
        ours += len(found.lost)
        over_all += len(discoveries(loss_p_values(16, 16, MARGIN)[c, d].tolist(), LEVEL))
    assert ours > 1.3 * over_all > 0
    assert ours > 0.6 * 500


def test_lost_and_won_are_the_same_the_other_way_round():
    rng = np.random.default_rng(5)
    before, after = rng.random(300), rng.random(300)
    n, m = rng.integers(4, 17, size=(2, 300))
    c, d = rng.binomial(n, before), rng.binomial(m, after)
    there, back = changed_prompts(c, n, d, m), changed_prompts(d, m, c, n)
    assert set(there.lost) == set(back.won) != set()
    assert (there.won, there.fell, there.nameable) == (back.lost, back.rose, back.nameable)
    order = rng.permutation(300)
    shuffled = changed_prompts(c[order], n[order], d[order], m[order])
    assert {int(order[i]) for i in shuffled.lost} == set(there.lost)


def test_prompts_with_too_few_rollouts_cost_nothing():
    c, d, n = np.array([16, 15, 14]), np.array([1, 2, 3]), np.full(3, 16)
    alone = changed_prompts(c, n, d, n)
    many = [np.concatenate([a, np.full(1000, b)]) for a, b in ((c, 1), (n, 1), (d, 0), (n, 1))]
    together = changed_prompts(*many)
    assert together.lost == alone.lost == (0, 1, 2)
    assert (together.fell, together.nameable) == (1003, 3)
    # The least p-value is the same for a loss and for a win, by symmetry.
    for n_, m in [(3, 20), (7, 4)]:
        there = candidate_p_values(n_, m, np.array([[n_, 0]]), MARGIN)
        assert there == pytest.approx(candidate_p_values(m, n_, np.array([[m, 0]]), MARGIN))


def test_one_rollout_each_names_nobody():
    found = changed_prompts(np.ones(50, int), 1, np.zeros(50, int), 1)
    assert (found.lost, found.fell, found.nameable) == ((), 50, 0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"margin": 1.0}, "margin must"), ({"false_discovery": 0.0}, "false_discovery must")],
)
def test_what_it_refuses(settings, says):
    with pytest.raises(ValueError, match=says):
        changed_prompts([1], 2, [1], 2, **settings)
