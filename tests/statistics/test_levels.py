"""Levels over real looks of a policy whose pass@1 is known: errors, the pool, weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from coins import CoinPolicy
from tiny import BanditPolicy

from passk_guard import HeldOutPool
from passk_guard.rollouts.scores import score
from passk_guard.statistics.levels import Levels

POOL = 160


def looks(run, *, prompts=POOL, told=True, speed=0.05, tokens=2, weight_by=None, times=4):
    """Change as the levels know it, its error, and the pool's true one, look by look."""
    torch.manual_seed(run)
    policy = CoinPolicy(POOL, tokens, dim=16)
    rows = [{"prompt": str(i), "w": 1.0 + 3 * (i % 3)} for i in range(POOL)]
    share = np.array([row["w"] if weight_by else 1.0 for row in rows]) / POOL
    share /= share.sum()
    pool = HeldOutPool(rows, seed=run, weight_by=weight_by)
    levels = Levels(policy, None, pool=pool.sizes() if told else None)
    ids, weights = pool.reference(prompts)
    direction = torch.randn(16, dtype=torch.float64)
    start = share @ policy.success().detach().numpy()
    groups = policy.generate(None, ids, 12)
    levels.begin(0, groups, score(policy, groups), weights)
    for t in range(1, times):
        with torch.no_grad():
            policy.theta += speed * direction
        right, n = levels.counts.recent()
        groups = policy.generate(None, ids, 3)
        groups = [
            replace(g, baseline=float(c / of)) for g, c, of in zip(groups, right, n, strict=True)
        ]
        track = levels.look(10 * t, groups, score(policy, groups)).track
        yield track, share @ policy.success().detach().numpy() - start, levels


def z(runs, **how):
    found = [
        (t.change - truth) / t.change_se for run in range(runs) for t, truth, _ in looks(run, **how)
    ]
    return np.array(found)


@pytest.mark.simulation
@pytest.mark.parametrize("speed", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("prompts", [POOL, 40])
def test_the_error_of_the_change_is_that_of_the_pool(prompts, speed):
    found = z(50, prompts=prompts, speed=speed)
    assert 0.88 < np.mean(np.abs(found) < 1.96) < 0.995
    assert 0.7 < np.sqrt(np.mean(found**2)) < 1.25


@pytest.mark.simulation
def test_without_the_pool_the_error_is_that_of_these_prompts_alone():
    """As if the reference's prompts were all there are: its error is too small for the pool."""
    found = []
    for run in range(30):
        for track, truth, levels in looks(run, prompts=20, speed=0.3):
            alone = levels._tracks[None].now().change_se
            found.append((track.change - truth) / alone)
    assert np.sqrt(np.mean(np.square(found))) > 1.6


@pytest.mark.simulation
def test_weights_make_it_the_change_of_what_production_sees():
    found = z(40, prompts=60, weight_by="w", speed=0.2)
    assert 0.7 < np.sqrt(np.mean(found**2)) < 1.25


def test_fast_policies_are_known_by_fixes_alone():
    *_, (track, truth, levels) = looks(0, speed=1.5, tokens=40)
    assert not levels.can_rescore or levels._reference is None
    assert abs(track.change - truth) < 4 * track.change_se


def test_rows_are_chosen_in_proportion_to_their_weight():
    rng = np.random.default_rng(0)
    rows = [{"prompt": str(i), "w": float(w)} for i, w in enumerate(rng.gamma(0.7, size=300))]
    w, x = np.array([row["w"] for row in rows]), rng.random(300)
    found = []
    for seed in range(400):
        ids, weights = HeldOutPool(rows, seed, weight_by="w").reference(60)
        assert len(set(ids)) == 60
        found.append(weights @ x[ids] / 60)
    assert np.mean(found) == pytest.approx(w @ x / w.sum(), abs=3 * np.std(found) / 20)
    assert abs(np.mean(found) - x.mean()) > 3 * np.std(found) / 20  # weights matter here
    ids, weights = HeldOutPool(rows, 0, weight_by="w").reference(300)
    assert np.allclose(weights, w[ids] / w.mean())
    assert HeldOutPool(rows[:5], 1).reference(3)[1].tolist() == [1.0, 1.0, 1.0]


def unseen_answers_grow():
    """Error and stated error of a re-scoring where an answer that no stored rollout has takes over
    a sixth of what is sampled of half the prompts.
    """
    torch.manual_seed(0)
    m = 200
    policy = BanditPolicy(m, dim=m)
    policy.features = torch.eye(m, dtype=torch.float64)
    places = torch.arange(m)
    unseen, odd = (policy.right + 1) % 4, places % 2 == 1
    with torch.no_grad():
        policy.weight[:] = -30.0
        policy.weight[policy.right, places] = policy.weight[(policy.right + 2) % 4, places] = 0.0
        policy.weight[unseen, places] = -7.0
    levels = Levels(policy, None)
    groups = policy.generate(None, range(m), 12)
    levels.begin(0, groups, score(policy, groups), np.ones(m))
    with torch.no_grad():
        policy.weight[unseen[odd], places[odd]] = -0.9
        now = torch.stack([policy.success(x) for x in range(m)])
    track = levels.again(10).track
    return track.change - float(now.mean() - 0.5), track.change_se


def test_stored_rollouts_cannot_show_what_they_never_saw(monkeypatch):
    error, stated = unseen_answers_grow()
    assert 0.02 < abs(error) < 1.96 * stated
    monkeypatch.setattr("passk_guard.statistics.levels._missed", lambda *_: 0.0)
    error, stated = unseen_answers_grow()
    assert abs(error) > 3 * stated
