"""The k of ``adjust_k`` against a slow oracle, and the rule that it replaces."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passk_guard import PassKObjective
from passk_guard.passk import unbiased_prompt_weight
from passk_guard.remedies.share_of_k import ShareOfK

N = 16
RNG = np.random.default_rng(0)
HARD = [(int(c), N) for c in RNG.binomial(N, RNG.beta(0.6, 0.6, 64))]
MIDDLING = [(int(c), N) for c in RNG.binomial(N, RNG.beta(5, 5, 64))]


def weights(k, counts=HARD):
    """``(m,)`` of PKPO at a fractional k, root gradient sizes multiplied in."""
    c, n = np.array(counts).T
    low, part = int(k), k - int(k)
    found = unbiased_prompt_weight(c, n, low).astype(float)
    if part:
        found = (1 - part) * found + part * unbiased_prompt_weight(c, n, low + 1)
    return found * np.sqrt(c * (n - c))


def angle(a, b):
    return np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))


@pytest.mark.parametrize("counts", [HARD, MIDDLING], ids=["hard", "middling"])
@pytest.mark.parametrize("most", [2, 8])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.56, 0.8])
def test_no_other_mix_is_nearer_to_the_k_that_is_chosen(most, share, counts):
    k = ShareOfK.over(PassKObjective(most), most, counts).k(share)
    own, ends = weights(k, counts), (weights(most, counts), weights(1, counts))
    mixes = np.linspace(0, 1, 2001)
    angles = [angle(own, (1 - other) * ends[0] + other * ends[1]) for other in mixes]
    assert mixes[int(np.argmin(angles))] == pytest.approx(share, abs=1e-3)


def test_the_rule_that_it_replaces_misses_the_share():
    """Negative control: k^(1-λ) acts too strongly on hard prompts."""
    found = ShareOfK.over(PassKObjective(8), 8, HARD)
    shares = np.linspace(0.1, 0.9, 9)
    geometric = np.array([found.share(8 ** (1 - share)) for share in shares])
    assert (geometric - shares).max() > 0.06
    assert [found.share(found.k(share)) for share in shares] == pytest.approx(shares, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, N), min_size=2, max_size=40),
    st.sampled_from([2, 3, 8, 15]),
    st.lists(st.floats(0, 1), min_size=2, max_size=5),
)
def test_more_pass1_is_a_lower_k(correct, most, shares):
    found = ShareOfK.over(PassKObjective(most), most, [(c, N) for c in correct])
    if found is None:
        return
    ks = [found.k(share) for share in sorted(shares)]
    assert all(1 <= k <= most for k in ks)
    assert (np.diff(ks) <= 1e-9).all()
    assert (found.k(0.0), found.k(1.0)) == (most, 1)
    assert (found.share(most), found.share(1)) == pytest.approx((0, 1), abs=1e-6)


def test_the_objective_is_left_as_it_was_and_its_own_weights_count():
    objective = PassKObjective(5, pass1_weight=0.25, estimator="analytic", group_size=N)
    found = ShareOfK.over(objective, 8, HARD)
    assert (objective.k, objective.pass1_weight) == (5, 0.25)
    other = ShareOfK.over(PassKObjective(8), 8, HARD)
    assert not np.allclose(found.weights, other.weights)
    assert abs(found.k(0.5) - other.k(0.5)) > 0.05


@pytest.mark.parametrize(
    "counts",
    [[], [(0, N), (N, N)], [(3, N)] * 20, [(14, N), (15, N)]],
    ids=["none", "silent", "all alike", "weightless at 8"],
)
def test_counts_that_tell_nothing(counts):
    assert ShareOfK.over(PassKObjective(8), 8, counts) is None


def test_weights_that_are_no_numbers():
    class Odd(PassKObjective):
        def prompt_weight(self, correct, n, trainer_weight, training):
            return np.inf if self.k == 1 else super().prompt_weight(correct, n, None, None)

    assert ShareOfK.over(Odd(8), 8, HARD) is None


def test_a_fractional_k_of_the_users_own():
    found = ShareOfK.over(PassKObjective(2.5), 2.5, HARD)
    assert found.k(0.0) == 2.5
    assert found.share(2.5) == pytest.approx(0, abs=1e-9)
    assert 1 < found.k(0.5) < 2.5
