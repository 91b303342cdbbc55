"""Intervals of means: against exact ones, by simulation, and where Wald's fails."""

import math

import numpy as np
import pytest

from passk_guard.passk import pass_at_k
from passk_guard.statistics.mean_interval import mean_interval, mean_intervals


def clopper_pearson(x, n):
    """Upper end of the exact 95 % interval of a proportion, by bisection of the binomial tail."""
    low, high = x / n, 1.0
    for _ in range(60):
        p = (low + high) / 2
        tail = sum(math.comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(x + 1))
        low, high = (p, high) if tail > 0.025 else (low, p)
    return low


def wald(values):
    centre, half = values.mean(1), 1.96 * values.std(1, ddof=1) / math.sqrt(values.shape[1])
    return centre - half, centre + half


def coverage(intervals, truth):
    low, high = intervals
    return float(((low <= truth) & (truth <= high)).mean())


@pytest.mark.parametrize("n", [1, 2, 5, 20, 100])
def test_of_few_ones_it_is_the_exact_interval_of_a_proportion(n):
    for x in range(min(n, 7)):
        values = (np.arange(n) < x).astype(float)
        exact = clopper_pearson(x, n)
        assert exact <= mean_interval(values)[1] <= 1.006 * exact
        # The other end is that of the other ones, and so with any bounds.
        low, high = mean_interval(1 - values)
        assert low == pytest.approx(1 - mean_interval(values)[1], abs=1e-9)
        assert mean_interval(3 - 5 * values, -2, 3)[0] == pytest.approx(5 * low - 2, abs=1e-8)
        assert high <= 1


@pytest.mark.parametrize("m", [50, 1000])
def test_where_all_agree_it_is_not_empty(m):
    low, high = mean_interval(np.zeros(m))
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / m), rel=0.006)
    low, high = mean_interval(np.ones(m))
    assert (low, high) == (pytest.approx(0.025 ** (1 / m), rel=0.006), 1)
    low, high = mean_interval(np.full(m, 0.5))
    assert low < 0.5 < high


def test_what_differs_by_rounding_alone_is_the_same():
    values = 0.3 + np.random.default_rng(3).choice([-1e-16, 0, 1e-16], size=200)
    assert mean_interval(values) == pytest.approx(mean_interval(np.full(200, 0.3)), abs=1e-9)
    assert mean_interval(values)[1] > 0.31


def test_of_many_values_it_is_the_plain_one():
    values = np.random.default_rng(0).random(5000)
    low, high = mean_interval(values)
    half = 1.96 * values.std() / math.sqrt(5000)
    assert low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_order_does_not_matter_and_rows_have_nothing_to_do_with_each_other():
    rng = np.random.default_rng(1)
    values = rng.beta(0.3, 2, size=(3, 60))
    values[1] = rng.random(60) < 0.02
    low, high = mean_intervals(values)
    for row, *ends in zip(values, low, high, strict=True):
        assert mean_interval(rng.permutation(row)) == pytest.approx(ends, abs=1e-9)


@pytest.mark.parametrize("m", [50, 400])
@pytest.mark.parametrize(
    ("a", "b", "n", "k"), [(0.5, 0.5, 4, 1), (0.2, 5.0, 8, 4), (8.0, 0.5, 16, 2), (1.0, 1.0, 16, 8)]
)
def test_it_covers_the_mean_of_the_population(m, a, b, n, k):
    rng = np.random.default_rng([m, n])
    population = rng.beta(a, b, size=20_000)
    drawn = population[rng.integers(20_000, size=(1500, m))]
    values = pass_at_k(rng.binomial(n, drawn), n, k)
    truth = (1 - (1 - population) ** k).mean()
    # The share of 1,500 draws is good to 1.7 points at three standard errors.
    assert coverage(mean_intervals(values), truth) >= 0.935


def test_where_the_plain_one_fails():
    """One prompt in a hundred is ever solved, of 100: the plain interval is often empty."""
    solved = (np.random.default_rng(2).random((1500, 100)) < 0.01).astype(float)
    assert coverage(wald(solved), 0.01) < 0.7
    assert coverage(mean_intervals(solved), 0.01) > 0.94


@pytest.mark.parametrize(
    ("values", "says"),
    [([], "m at least 1"), ([0.5, 1.5], "between 0 and 1"), ([0.5, math.nan], "between 0 and 1")],
)
def test_what_it_refuses(values, says):
    with pytest.raises(ValueError, match=says):
        mean_interval(np.array(values))
