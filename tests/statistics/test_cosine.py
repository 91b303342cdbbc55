"""The pooled cosine against a known truth, with the coverage of its interval."""

import numpy as np
import pytest

from passk_guard.statistics.alignment import weighted_alignment
from passk_guard.statistics.cosine import PooledCosine

HARD_SHARE, HARD_WEIGHT, NOISE = 0.3, 4.0, 2.0
EASY, HARD = np.array([1.0, 0.0]), np.array([-0.8, 0.6])


def alignment(rng, m=128):
    hard = rng.random(m) < HARD_SHARE
    g = np.where(hard[:, None], HARD, EASY) + NOISE * rng.normal(size=(m, 2))
    return weighted_alignment(g @ g.T, np.where(hard, HARD_WEIGHT, 0.2))


def truth():
    pass1 = (1 - HARD_SHARE) * EASY + HARD_SHARE * HARD
    passk = (1 - HARD_SHARE) * 0.2 * EASY + HARD_SHARE * HARD_WEIGHT * HARD
    return pass1 @ passk / np.linalg.norm(pass1) / np.linalg.norm(passk)


def runs(m, count):
    """Last single and last pooled cosine of runs of eight probes."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        pooled = PooledCosine()
        for _ in range(8):
            last = alignment(rng, m)
            cosine = pooled.update(last)
        if cosine is not None and last.cosine is not None:
            yield last.cosine, cosine


def test_the_interval_covers_the_truth_and_pooling_narrows():
    found = list(runs(m=128, count=300))
    covered = [cosine.low <= truth() <= cosine.high for _, cosine in found]
    assert 0.92 < np.mean(covered) < 0.995
    assert np.std([cosine.value for _, cosine in found]) < 0.7 * np.std([one for one, _ in found])


def test_it_converges_on_the_truth():
    values = [cosine.value for _, cosine in runs(m=800, count=40)]
    assert np.mean(values) == pytest.approx(truth(), abs=0.03)


def test_no_signal_and_no_norm_is_none_and_state_survives():
    rng = np.random.default_rng(1)
    empty = weighted_alignment(np.zeros((8, 8)), np.ones(8))
    assert PooledCosine().update(empty) is None
    one, two = PooledCosine(), PooledCosine()
    one.update(alignment(rng))
    two.load_state_dict(one.state_dict())
    last = alignment(rng)
    assert one.update(last) == two.update(last)
