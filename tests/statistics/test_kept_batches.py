"""Kept Gramians, weighed as training weighs prompts today."""

import numpy as np
import pytest

from passk_guard import PassKObjective
from passk_guard.objectives.mixes import TrainerMix
from passk_guard.passk import unbiased_prompt_weight
from passk_guard.runtime.stored import Unfit
from passk_guard.statistics.alignment import weighted_alignment
from passk_guard.statistics.evidence import WeightsInForce
from passk_guard.statistics.kept_batches import KeptBatch, KeptBatches
from passk_guard.statistics.pace import PaceKeeper
from passk_guard.statistics.rollout_store import Drift

N = 16


def batch(rng, m=64, trainer=np.nan):
    """Hard prompts pull the other way."""
    hard = rng.random(m) < 0.3
    correct = rng.binomial(N, np.where(hard, 0.1, 0.8))
    g = np.where(hard, -1.0, 1.0)[:, None] * np.eye(30)[0] + 0.8 * rng.normal(size=(m, 30))
    g[(correct == 0) | (correct == N)] = 0
    return KeptBatch(g @ g.T, correct, np.full(m, N), np.full(m, trainer))


def kept(count, seed=0):
    rng, batches = np.random.default_rng(seed), KeptBatches()
    for _ in range(count):
        batches = batches.plus(batch(rng))
    return batches


def test_the_cosine_is_of_todays_update_not_of_those_that_were():
    batches, objective = kept(8), PassKObjective(8)

    def today():
        return batches.cosine(WeightsInForce(8, objective, "update"))

    assert today().high < 0  # pass@8
    objective.pass1_weight = 1.0
    assert today().low > 0.9  # pass@1, on the very same batches
    objective.pass1_weight, objective.k = 0.0, 1.5
    assert today().low > 0  # fractional k


def test_the_scale_is_the_error_that_a_fresh_batch_has():
    rng, batches = np.random.default_rng(1), kept(20)
    weigh = WeightsInForce(8, PassKObjective(8), "update")
    fresh = [batch(rng) for _ in range(200)]
    inner = [weighted_alignment(b.gramian, weigh(b)).inner for b in fresh]
    assert batches.scale(weigh, 64) == pytest.approx(np.std(inner), rel=0.15)
    assert batches.scale(weigh, 256) < 0.6 * batches.scale(weigh, 64)


def test_only_the_last_twenty_count_and_nothing_is_nothing():
    assert KeptBatches().cosine(lambda kept: np.ones(1)) is None
    assert KeptBatches().scale(lambda kept: np.ones(1), 64) is None
    assert len(kept(30)) == 20


def test_gradients_by_other_parameters_are_not_pooled():
    before = KeptBatches().by(["head"]).plus(batch(np.random.default_rng(0)))
    assert len(before.by(["head"])) == 1
    assert len(before.by(["head", "body"])) == 0
    resumed = KeptBatches()
    resumed.load_state_dict(before.state_dict())
    assert [len(resumed.by(names)) for names in (["head"], ["body"])] == [1, 0]


def test_what_stands_beside_the_trainer_is_seen_only_with_its_advantages():
    rng = np.random.default_rng(0)
    blind, seeing = batch(rng), batch(rng, trainer=2.0)
    mix = WeightsInForce(8, TrainerMix(8), "update")
    assert (mix.sees(blind), mix.sees(seeing)) == (False, True)
    assert WeightsInForce(8, PassKObjective(8), "update").sees(blind)
    assert not WeightsInForce(8, None, "update").sees(blind)
    assert WeightsInForce(8, None, "target_k").sees(blind)
    weights = WeightsInForce(8, None, "update")(blind)
    assert np.array_equal(weights, unbiased_prompt_weight(blind.correct, blind.n, 8))


def test_its_state_goes_on_and_a_damaged_one_is_refused():
    one, other = kept(3), KeptBatches()
    other.load_state_dict(one.state_dict())
    weigh = WeightsInForce(8, PassKObjective(8), "update")
    assert one.cosine(weigh) == other.cosine(weigh)
    state = one.state_dict()
    state["batches"][0]["gramian"][3, 2] = np.nan
    with pytest.raises(Unfit, match="gramian must be finite"):
        other.load_state_dict(state)


def test_the_pace_is_the_last_increments_per_ten_steps():
    keeper = PaceKeeper()
    assert keeper.update(None, 0) is None
    now = keeper.update(Drift(-0.006, 0.002, 0.002**2, 64, 0.0, usable=True), 5)
    assert now.change == pytest.approx(-0.012)
    assert (now.low, now.high) == pytest.approx((-0.012 - 1.96 * 0.004, -0.012 + 1.96 * 0.004))
    assert keeper.update(Drift(0.0, 0.0, 0.0, 64, 0.0, usable=False), 5) == now
    for _ in range(20):
        now = keeper.update(Drift(-0.006, 0.002, 0.002**2, 64, 0.0, usable=True), 5)
    assert now.change == pytest.approx(-0.012)
    assert now.high - now.low == pytest.approx(2 * 1.96 * 0.004 / 3**0.5, rel=0.01)
    for _ in range(20):
        now = keeper.update(Drift(0.006, 0.002, 0.002**2, 64, 0.0, usable=True), 5)
    assert now.change == pytest.approx(0.012, rel=1e-3)  # what was before is forgotten
