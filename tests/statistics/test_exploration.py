"""pass@k by the last looks together: closed forms, and errors by simulation."""

import numpy as np
import pytest
import torch

from passk_guard.rollouts.group import RolloutGroup
from passk_guard.statistics.exploration import pass_at_k_since_start
from passk_guard.statistics.prompt_counts import PromptCounts

K = 4


def groups(right, n):
    ids = torch.ones(n, 1, dtype=torch.long)
    return [
        RolloutGroup(i, ids, ids, ids, (torch.arange(n) < c).float()) for i, c in enumerate(right)
    ]


def looked(rng, start, now, looks):
    counts = PromptCounts(groups(rng.binomial(6, start), 6))
    for _ in range(looks):
        counts.add(groups(rng.binomial(2, now), 2))
    return counts


def test_by_hand():
    counts = PromptCounts(groups([3, 0, 6, 5], 6))
    first = pass_at_k_since_start(counts, np.ones(4), K)
    assert first.change is None
    assert first.value == pytest.approx((1 + 0 + 1 + 1) / 4)
    assert first.gap == first.gap_at_start == pytest.approx(3 / 4 - 14 / 24)
    for _ in range(3):
        counts.add(groups([2, 0, 0, 1], 2))
    now = pass_at_k_since_start(counts, np.array([1.0, 1.0, 1.0, 3.0]), K)
    assert now.value == pytest.approx((1 + 0 + 0 + 3) / 6)  # 3 of 6: four tries meet one
    assert now.change == pytest.approx((0 + 0 - 1 + 0) / 6)
    assert now.gap == pytest.approx(now.value - (1 + 0 + 0 + 3 * 0.5) / 6)
    half = ((1 - 0.5) + 0 + 0 + 3 * (1 - 5 / 6)) / 6 / 2
    assert now.above_half == pytest.approx(now.gap - half)


def drawn(rng, m):
    start = rng.beta(0.6, 0.6, m)
    return start, np.clip(start - 0.1 * rng.random(m), 0, 1)


@pytest.mark.simulation
def test_errors_are_true_and_pairing_is_what_makes_them_small():
    rng = np.random.default_rng(0)
    start, now = drawn(rng, 2_000_000)
    truth, z, paired = float(((1 - start) ** K - (1 - now) ** K).mean()), [], []
    for _ in range(400):
        found = pass_at_k_since_start(looked(rng, *drawn(rng, 200), 3), np.ones(200), K)
        z.append((found.change - truth) / found.change_se)
        paired.append(found.change_se / (np.sqrt(2) * found.se))
    assert 0.9 < np.std(z) < 1.1
    assert np.mean(paired) < 0.8
