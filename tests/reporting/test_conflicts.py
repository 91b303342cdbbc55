"""Which prompts are named: planted conflicts are found, numbers are the probe's own."""

import numpy as np
import pytest
from guarded_bandit import CONTEXTS, make_guard
from tiny import BanditPolicy

from passk_guard.reporting.conflicts import WINDOW, find_conflicts

HALF = CONTEXTS // 2


def planted():
    """Contexts come in twos that look alike and want different actions; others are unrelated."""
    policy = BanditPolicy(CONTEXTS, actions=2, dim=48, seed=5)
    policy.features[HALF:] = policy.features[:HALF]
    policy.right[HALF:] = (policy.right[:HALF] + 1) % 2
    policy.weight.data *= 0.1  # no action is sure yet
    return policy


@pytest.fixture(scope="module")
def history():
    guard = make_guard(planted(), reference_prompts=CONTEXTS, action=lambda probe, guard: None)
    for step in range(0, 40, 5):
        guard.probe(step)
    return guard.history


def test_the_planted_pairs_come_first(history):
    found = find_conflicts(history)
    assert len(found.pairs) == 20
    hits = sum(abs(pair.first.row - pair.second.row) == HALF for pair in found.pairs)
    assert hits >= 18
    cosines = [pair.cosine for pair in found.pairs]
    assert cosines == sorted(cosines)
    assert all(-1 <= cosine < 0 for cosine in cosines)
    assert all(pair.share < 0 for pair in found.pairs)
    assert all(pair.first.pass_rate >= pair.second.pass_rate for pair in found.pairs)


def test_figures_of_one_probe_are_its_own(history):
    probe = history[-1]
    found = find_conflicts([probe], most=CONTEXTS)
    terms = probe.weights * probe.update_alignment.agreement
    assert terms.mean() == pytest.approx(probe.update_alignment.inner)
    assert [p.row for p in found.prompts] == [
        probe.row_ids[i] for i in np.argsort(terms) if terms[i] < 0
    ]
    for prompt in found.prompts:
        at = probe.row_ids.index(prompt.row)
        assert prompt.pass_rate == probe.correct[at] / probe.scored[at]
        assert prompt.share == pytest.approx(terms[at] / abs(terms).sum())
        assert prompt.looks == 1
    kernel = probe.gramian
    for pair in found.pairs:
        i, j = (probe.row_ids.index(p.row) for p in (pair.first, pair.second))
        cosine = kernel[i, j] / np.sqrt(kernel[i, i] * kernel[j, j])
        assert pair.cosine == pytest.approx(cosine, rel=1e-5)


def test_rows_that_recur_are_pooled_over_recent_probes_only(history):
    found = find_conflicts(history)
    assert found.steps == tuple(p.step for p in history[-WINDOW:])
    pair = next(pair for pair in found.pairs if pair.looks > 1)
    inner, one, other = np.sum(
        [
            [p.gramian[i, j], p.gramian[i, i], p.gramian[j, j]]
            for p in history[-WINDOW:]
            if {pair.first.row, pair.second.row} <= set(p.row_ids)
            for i, j in [(p.row_ids.index(pair.first.row), p.row_ids.index(pair.second.row))]
            if p.gramian[i, i] * p.gramian[j, j] > 0
        ],
        axis=0,
    )
    assert pair.cosine == pytest.approx(inner / np.sqrt(one * other), rel=1e-5)


def test_without_signal_nobody_is_named():
    policy = planted()
    policy.right[:] = 0
    policy.features[:] = policy.features[0].abs()
    policy.weight.data[:] = 0
    policy.weight.data[0] = 100.0  # everything is right
    probe = make_guard(policy).probe(0)
    assert probe.update_alignment is None
    assert find_conflicts([probe]) == find_conflicts([])
    assert not find_conflicts([]).pairs
