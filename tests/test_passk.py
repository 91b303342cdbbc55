"""The algebra against exact enumeration."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from passk_guard import pass_at_k, prompt_weight, unbiased_prompt_weight, weight_threshold


def exact_pass_at_k(c: int, n: int, k: int) -> float:
    """Share of k-subsets of n rollouts, c of them right, that hold a right one."""
    subsets = list(itertools.combinations(range(n), k))
    return sum(min(subset) < c for subset in subsets) / len(subsets)


@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_pass_at_k_counts_subsets(case):
    n, c = case
    for k in range(1, n + 1):
        assert pass_at_k(c, n, k) == pytest.approx(exact_pass_at_k(c, n, k), abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 8, 31])
def test_prompt_weight_is_the_slope_of_pass_at_k(k):
    p = torch.linspace(0.01, 0.99, 33, dtype=torch.float64, requires_grad=True)
    (1 - (1 - p) ** k).sum().backward()
    torch.testing.assert_close(prompt_weight(p.detach(), k), p.grad)


def test_unbiased_weight_equals_its_binomial_form():
    for n in range(3, 12):
        for k in range(1, n):
            got = unbiased_prompt_weight(np.arange(n + 1), n, k)
            want = [k * math.comb(n - c - 1, k - 1) / math.comb(n - 2, k - 1) for c in range(n)]
            np.testing.assert_allclose(got[:n], want, rtol=1e-12)


def test_weight_threshold_is_where_the_weight_is_one():
    for k in (2, 5, 8, 16, 32, 1000):
        assert prompt_weight(weight_threshold(k), k) == pytest.approx(1.0)


@pytest.mark.parametrize("c", [0, 1, 17, 5000, 9999, 10_000])
@pytest.mark.parametrize("k", [1, 2, 100, 5000, 9999])
def test_large_n_against_rational_arithmetic(c, k):
    n = 10_000
    exact = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
    assert pass_at_k(c, n, k) == pytest.approx(float(exact), rel=1e-9, abs=1e-12)
    if c < n:
        exact = k * Fraction(math.comb(n - c - 1, k - 1), math.comb(n - 2, k - 1))
        got = unbiased_prompt_weight(c, n, k)
        assert math.isfinite(got)
        assert got == pytest.approx(float(exact), rel=1e-9, abs=1e-300)


def test_same_kind_comes_back():
    assert isinstance(pass_at_k(1, 4, 2), float)
    assert isinstance(pass_at_k(np.array([1, 2]), np.array([4, 5]), 2), np.ndarray)
    for dtype in (torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64):
        got = pass_at_k(torch.tensor([0, 1]).to(dtype), 4, 2)
        torch.testing.assert_close(got, torch.tensor([0.0, 0.5], dtype=torch.float64))
    assert pass_at_k([], 4, 2).shape == (0,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pass_at_k(5, 4, 2), "correct must lie between 0 and n"),
        (lambda: pass_at_k(-1, 4, 2), "correct must lie between 0 and n"),
        (lambda: pass_at_k(0.5, 4, 2), "whole counts"),
        (lambda: pass_at_k(float("nan"), 4, 2), "whole counts"),
        (lambda: pass_at_k(1, 4, 5), "needs k <= n"),
        (lambda: pass_at_k(1, 4, 0), "at least 1"),
        (lambda: pass_at_k(1, 4, 1.5), "whole number of tries"),
        (lambda: unbiased_prompt_weight(1, 4, 4), "needs k <= n - 1"),
        (lambda: unbiased_prompt_weight([1, 1], [8, 4], 4), "k=4 is too large for n=4"),
        (lambda: prompt_weight(1.2, 2), r"p must lie in \[0, 1\]"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
