"""U-statistics of the Gramian: against loops, against known population gradients, by simulation."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import BanditPolicy

from passk_guard import alignment_curve, estimate_alignment, unbiased_prompt_weight
from passk_guard.statistics.alignment import weighted_alignment


def gramian_from(rng, m, d=3):
    vectors = rng.normal(size=(m, d))
    return vectors @ vectors.T


@given(st.integers(4, 9), st.integers(3, 8), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_every_statistic_equals_its_loop(m, n, seed):
    rng = np.random.default_rng(seed)
    K, c = gramian_from(rng, m), rng.integers(0, n + 1, m)
    for k in (1, n - 1):
        W = unbiased_prompt_weight(c, n, k)
        got = estimate_alignment(K, c, n, k)
        pairs = list(itertools.permutations(range(m), 2))
        assert got.inner == pytest.approx(np.mean([W[i] * K[i, j] for i, j in pairs]))
        assert got.pass1_norm2 == pytest.approx(np.mean([K[i, j] for i, j in pairs]))
        assert got.passk_norm2 == pytest.approx(np.mean([W[i] * W[j] * K[i, j] for i, j in pairs]))
        agreement = [np.mean([K[i, j] for j in range(m) if j != i]) for i in range(m)]
        np.testing.assert_allclose(got.agreement, agreement, atol=1e-12)
        # Jackknife: the statistic without each prompt in turn.
        without = []
        for i in range(m):
            keep = np.arange(m) != i
            sub, w = K[np.ix_(keep, keep)], W[keep]
            inner = (w[:, None] * sub).sum() - (w * np.diag(sub)).sum()
            without.append(inner / ((m - 1) * (m - 2)))
        variance = (m - 1) / m * np.sum((np.array(without) - np.mean(without)) ** 2)
        assert got.jackknife_se == pytest.approx(np.sqrt(variance), abs=1e-12)


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e15])
def test_scale_of_the_gradients_does_not_matter(scale):
    rng = np.random.default_rng(0)
    K, c = gramian_from(rng, 12), rng.integers(0, 9, 12)
    one, two = estimate_alignment(K, c, 8, 4), estimate_alignment(K * scale, c, 8, 4)
    assert two.z == pytest.approx(one.z)
    assert two.cosine == (None if one.cosine is None else pytest.approx(one.cosine))


def test_the_diagonal_is_ignored():
    rng = np.random.default_rng(0)
    K, c = gramian_from(rng, 8), rng.integers(1, 8, 8)
    assert estimate_alignment(K + 1e6 * np.eye(8), c, 8, 4).inner == pytest.approx(
        estimate_alignment(K, c, 8, 4).inner
    )


def test_k_one_is_pass1_itself_and_the_curve_covers_every_k():
    rng = np.random.default_rng(1)
    K, c = gramian_from(rng, 16), rng.integers(0, 9, 16)
    curve = alignment_curve(K, c, 8)
    assert [a.k for a in curve] == list(range(1, 8))
    assert curve[0].inner == pytest.approx(curve[0].pass1_norm2)
    assert curve[0].covariance == pytest.approx(0)


def test_no_signal_is_zero_not_an_error():
    got = estimate_alignment(np.zeros((8, 8)), np.zeros(8), 8, 4)
    assert (got.inner, got.se, got.z, got.cosine) == (0.0, 0.0, 0.0, None)


def test_torch_in_float_out():
    got = estimate_alignment(torch.eye(6) + 1, torch.ones(6, dtype=torch.long), 8, 2)
    assert isinstance(got.inner, float)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: estimate_alignment(np.zeros((3, 4)), [1] * 3, 8, 4), "square"),
        (lambda: estimate_alignment(np.zeros((3, 3)), [1] * 3, 8, 4), "at least 4 prompts"),
        (lambda: estimate_alignment(np.full((4, 4), np.nan), [1] * 4, 8, 4), "NaN or infinity"),
        (lambda: estimate_alignment(np.zeros((4, 4)), [1] * 3, 8, 4), "correct must have one"),
        (lambda: estimate_alignment(np.zeros((4, 4)), [1] * 4, 8, 8), "needs k <= n - 1"),
        (lambda: weighted_alignment(np.zeros((4, 4)), [1.0] * 5), "weights must have one"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Simulation on a contextual bandit whose population gradients are known ---------------------

CONTEXTS, M, N, K_TARGET, BATCHES = 200, 24, 12, 6, 600


def bandit_batches():
    """Per batch: per-prompt leave-one-out gradients ``(M, P)`` and counts, in closed form.

    For a linear softmax policy the score of action a at context x is (e_a - π) ⊗ φ(x).
    """
    policy = BanditPolicy(CONTEXTS, actions=4, dim=3, seed=5)
    rng = np.random.default_rng(0)
    phi, right = policy.features.numpy(), policy.right.numpy()
    pi = np.exp(np.stack([policy.pi(x).detach().numpy() for x in range(CONTEXTS)]))
    for _ in range(BATCHES):
        x = rng.integers(CONTEXTS, size=M)
        actions = np.stack([rng.choice(4, size=N, p=pi[i]) for i in x])
        r = (actions == right[x][:, None]).astype(float)
        score = np.eye(4)[actions] - pi[x][:, None, :]  # (M, N, 4)
        centred = r - r.mean(1, keepdims=True)
        g = np.einsum("mn,mna,md->mad", centred, score, phi[x]) / (N - 1)
        yield g.reshape(M, -1), r.sum(1)


@pytest.mark.simulation
def test_unbiased_on_a_bandit_where_the_naive_estimate_is_not():
    ours, naive = [], []
    probability, exact = BanditPolicy(CONTEXTS, actions=4, dim=3, seed=5).exact_gradients()
    for g, c in bandit_batches():
        K = g @ g.T
        a = estimate_alignment(K, c, N, K_TARGET)
        ours.append((a.inner, a.pass1_norm2, a.passk_norm2, a.covariance))
        W = unbiased_prompt_weight(c, N, K_TARGET)
        naive.append(float((W[:, None] * g).mean(0) @ g.mean(0)))
    w = K_TARGET * (1 - probability.numpy()) ** (K_TARGET - 1)
    G = exact.numpy()
    grad1, gradk = G.mean(0), (w[:, None] * G).mean(0)
    covariance = gradk @ grad1 - w.mean() * (grad1 @ grad1)  # E[wa] - E[w] E[a]
    truth = np.array([gradk @ grad1, grad1 @ grad1, gradk @ gradk, covariance])
    ours = np.array(ours)
    error = (ours.mean(0) - truth) / (ours.std(0, ddof=1) / np.sqrt(BATCHES))
    assert np.abs(error).max() < 3
    naive = np.array(naive)
    naive_error = (naive.mean() - truth[0]) / (naive.std(ddof=1) / np.sqrt(BATCHES))
    assert naive_error > 10  # pulled towards agreement


def test_standard_errors_on_the_same_bandit():
    estimates, unbiased, jackknife = [], [], []
    for g, c in bandit_batches():
        a = estimate_alignment(g @ g.T, c, N, K_TARGET)
        estimates.append(a.inner)
        unbiased.append(a.se**2)
        jackknife.append(a.jackknife_se**2)
    true_sd = np.std(estimates, ddof=1)
    assert np.sqrt(np.mean(unbiased)) / true_sd == pytest.approx(1.0, abs=0.12)
    assert 1.0 < np.sqrt(np.mean(jackknife)) / true_sd < 1.6  # conservative, as stated
