"""Paired changes of pass@k: against the plain sums, exact intervals, and by simulation."""

import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoint_pairs import drawn, truth

from passk_guard.passk import pass_at_k
from passk_guard.statistics.mean_interval import mean_interval, mean_intervals
from passk_guard.statistics.paired_counts import default_ks, paired_changes, visible_change

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import compare_coverage


def counts(rng, m=120):
    n, later = rng.integers(1, 17, size=(2, m))
    p = rng.random(m)
    return rng.binomial(n, p), n, rng.binomial(later, p), later


def test_each_k_is_over_the_prompts_that_have_k_rollouts_in_both():
    c, n, d, later = counts(np.random.default_rng(0), 400)
    changes = paired_changes(c, n, d, later, [1, 2, 5, 16])
    assert [change.k for change in changes] == [1, 2, 5, 16]
    for change in changes:
        at = [i for i in range(400) if min(n[i], later[i]) >= change.k]
        before = np.array([pass_at_k(int(c[i]), int(n[i]), change.k) for i in at])
        after = np.array([pass_at_k(int(d[i]), int(later[i]), change.k) for i in at])
        assert change.prompts == len(at)
        assert change.differing == sum(abs(after - before) > 1e-12)
        assert change.before == pytest.approx(before.mean())
        assert change.after == pytest.approx(after.mean())
        assert change.change == pytest.approx((after - before).mean())
        for values, bounds, ends in [
            (after - before, (-1, 1), (change.low, change.high)),
            (before, (0, 1), (change.before_low, change.before_high)),
            (after, (0, 1), (change.after_low, change.after_high)),
        ]:
            assert mean_interval(values, *bounds) == pytest.approx(ends, abs=1e-9)


def test_order_does_not_matter_and_the_other_way_round_is_the_mirror_image():
    rng = np.random.default_rng(1)
    c, n, d, later = counts(rng)
    order = rng.permutation(120)
    there = paired_changes(c, n, d, later, [1, 4])
    for one, other, back in zip(
        there,
        paired_changes(c[order], n[order], d[order], later[order], [1, 4]),
        paired_changes(d, later, c, n, [1, 4]),
        strict=True,
    ):
        assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=1e-9)
        assert (one.low, one.high) == pytest.approx((-back.high, -back.low), abs=1e-9)
        assert one.visible == pytest.approx(back.visible)


def test_what_all_lose_is_lost_and_what_none_loses_is_not_zero():
    all_lost = paired_changes(np.ones(100), 1, np.zeros(100), 1, [1])[0]
    assert (all_lost.change, all_lost.low) == (-1, -1)
    assert all_lost.high == pytest.approx(1 - 2 * 0.025**0.01, rel=0.01)
    none = paired_changes(np.ones(100), 1, np.ones(100), 1, [1])[0]
    assert none.low == -none.high == pytest.approx(0.025**0.01 - 1, rel=0.01)


def test_the_most_differing_prompt_never_makes_an_interval_without_the_estimate():
    rng = np.random.default_rng(2)
    for _ in range(200):
        m = rng.integers(1, 30)
        values = rng.random(m) ** rng.integers(1, 30) * rng.choice([-1, 0, 1], size=m)
        low, high = mean_interval(values, -1, 1)
        assert -1 <= low <= values.mean() <= high <= 1


@pytest.mark.parametrize(
    ("n", "ks"),
    [
        ([1, 1, 1], (1,)),
        ([4, 4, 16], (1, 2, 3, 4)),
        ([1, 3], (1, 2, 3)),
        ([300] * 3, (*range(1, 65), 128, 256)),
    ],
)
def test_every_k_that_half_of_the_prompts_reach(n, ks):
    assert default_ks(n) == ks


@pytest.mark.parametrize(("ks", "says"), [([8], "no prompt has k=8"), ([0], "k must be")])
def test_what_it_refuses(ks, says):
    with pytest.raises(ValueError, match=says):
        paired_changes([1, 2], 4, [1, 2], 4, ks)


# By simulation; all populations, sizes and k: tests/benchmarks/compare_coverage.py ----------------


@pytest.mark.parametrize(
    ("name", "m", "n", "k"),
    [
        ("the same", 50, 4, 1),
        ("a tenth in play", 50, 4, 2),
        ("2 % lost, else ties", 200, 1, 1),
        ("2 % lost, else small noise", 400, 16, 1),
        ("easy ones", 200, None, 4),
        ("hard ones", 200, 16, 8),
        ("sharpened", 50, 64, 8),
    ],
)
def test_intervals_hold_the_truth(name, m, n, k):
    found = compare_coverage.cell(np.random.default_rng(m), name, m, n, k, draws=1000)
    assert compare_coverage.faults(name, m, found) == []
    assert min(found["change"], found["after"]) > 0.93


def test_where_the_plain_interval_fails_and_the_unpaired_one_is_idle():
    found = compare_coverage.cell(
        np.random.default_rng(0), "2 % lost, else ties", 50, 1, 1, draws=1000
    )
    assert found["plain"] < 0.75
    assert "change low" in compare_coverage.faults(
        "2 % lost, else ties", 50, found | {"change": 0.8}
    )
    found = compare_coverage.cell(np.random.default_rng(0), "the same", 200, 64, 1, draws=200)
    assert found["unpaired length"] > 5 * found["length"]


def test_what_no_interval_tells():
    """One prompt in 50 makes the change, and a third of all samples of 50 has none of them.

    Of these nothing tells that they are not from a population without a change. An interval that
    held the truth of both would have to be several times as long as the noise of the latter asks.
    """
    rng = np.random.default_rng(6)
    change, _ = truth("2 % lost, else small noise", 1)
    first, last = drawn(rng, "2 % lost, else small noise", 1000, 50, 64, 1)
    without = ~(first > 0.5).any(1)
    assert without.mean() == pytest.approx(0.98**50, abs=0.05)
    low, high = mean_intervals((last - first)[without], -1.0, 1.0)
    assert ((low <= change) & (change <= high)).mean() < 0.1
    assert ((low <= 0) & (high >= 0)).mean() > 0.93


@pytest.mark.parametrize("name", ["the same", "all alike"])
@pytest.mark.parametrize(("m", "n", "k"), [(200, 4, 1), (1000, 16, 4)])
def test_the_smallest_visible_change_is_seen_four_times_in_five(name, m, n, k):
    """The same spread around a change of that size; the noise of 1,000 draws is 1.3 points."""
    rng = np.random.default_rng([m, n])
    assert truth(name, k)[0] == pytest.approx(0, abs=1e-12)
    first, last = drawn(rng, name, 1000, m, n, k)
    difference = (last - first) * 0.9  # room for the change within the bounds
    low, high = mean_intervals(difference, -1.0, 1.0)
    visible = visible_change(difference, low, high)
    size = float(np.median(visible))
    low, high = mean_intervals(difference - size * 0.999, -1 - size, 1.0)
    assert (high < 0).mean() == pytest.approx(0.8, abs=0.06)
    low, high = mean_intervals(difference - size / 2, -1 - size, 1.0)
    assert (high < 0).mean() < 0.5
    assert np.quantile(visible, 0.05) > 0.7 * size


def test_where_nothing_differs_it_is_what_prompts_lost_wholly_would_show():
    """A share of prompts is lost wholly, none else differs: 80 % of samples show that."""
    rng = np.random.default_rng(8)
    same = paired_changes(np.zeros(400), 4, np.zeros(400), 4, [1])[0]
    lost = (rng.random((2000, 400)) < same.visible).astype(float)
    _, high = mean_intervals(-lost, -1.0, 1.0)
    assert (high < 0).mean() == pytest.approx(0.8, abs=0.06)
