"""Kept Gramians, weighed as training weighs prompts today."""

from itertools import islice

import numpy as np
import pytest
from nulls import PANELS, by_trainer, panel_batches

from passk_guard import PassKObjective
from passk_guard.objectives.mixes import TrainerMix
from passk_guard.passk import unbiased_prompt_weight
from passk_guard.runtime.stored import Unfit
from passk_guard.statistics.alignment import weighted_alignment
from passk_guard.statistics.evidence import WeightsInForce
from passk_guard.statistics.kept_batches import KeptBatch, KeptBatches
from passk_guard.statistics.pace import PaceKeeper
from passk_guard.statistics.track import Drift

N = 16


def batch(rng, m=64, trainer=np.nan, hard=None, rollouts=N):
    """Hard prompts pull the other way."""
    hard = rng.random(m) < 0.3 if hard is None else hard
    correct = rng.binomial(N, np.where(hard, 0.1, 0.8))
    g = np.where(hard, -1.0, 1.0)[:, None] * np.eye(30)[0] + 0.8 * rng.normal(size=(m, 30))
    g[(correct == 0) | (correct == N)] = 0
    return KeptBatch(g @ g.T, correct, np.full(m, N), np.full(m, trainer), rollouts)


def kept(count, seed=0):
    rng, batches = np.random.default_rng(seed), KeptBatches()
    hard = rng.random(64) < 0.3
    for _ in range(count):
        batches = batches.plus(batch(rng, hard=hard))
    return batches


def test_the_cosine_is_of_todays_update_not_of_those_that_were():
    batches, objective = kept(8), PassKObjective(8)

    def today():
        return batches.cosine(WeightsInForce(8, objective, "update"))

    assert today().high < 0  # pass@8
    objective.pass1_weight = 1.0
    assert today().value > 0.9  # pass@1, on the very same batches
    objective.pass1_weight, objective.k = 0.0, 1.5
    assert today().value > 0  # fractional k


def test_the_error_foretold_is_that_of_a_look_at_these_prompts():
    rng, hard = np.random.default_rng(1), np.random.default_rng(0).random(64) < 0.3
    weigh, batches = WeightsInForce(8, PassKObjective(8), "update"), kept(20)
    looks = [batch(rng, hard=hard) for _ in range(200)]
    inner = [weighted_alignment(b.gramian, weigh(b)).inner for b in looks]
    foretold = batches.foretold(weigh, N)
    assert foretold.se == pytest.approx(np.std(inner), rel=0.4)
    assert abs(foretold.mean) < abs(np.mean(inner))  # the opposition is no error in common


def test_it_is_foretold_from_looks_with_as_many_rollouts():
    """The reference has more of each prompt, and less noise than the looks that follow."""
    weigh = WeightsInForce(8, PassKObjective(8), "update")
    assert kept(3).foretold(weigh, 2) is None
    assert kept(3).plus(batch(np.random.default_rng(0), rollouts=2)).foretold(weigh, 2) is not None


@pytest.mark.parametrize("name", ["panel, rank 40, strong", "panel, rank 3, half its own"])
def test_u_of_successive_looks_is_white_and_without_the_common_part_it_is_not(name):
    rng, sums = np.random.default_rng(0), []
    for _ in range(40):
        looks = panel_batches(PANELS[name], rng, 64)
        batches, u = KeptBatches([next(looks)]), []
        for look in islice(looks, 21):
            if foretold := batches.foretold(by_trainer, look.rollouts):
                found = weighted_alignment(look.gramian, look.trainer_weights)
                u.append([(found.inner - foretold.mean) / foretold.se, found.z])
            batches = batches.plus(look)
        sums.append(np.clip(u, -4, 4).sum(0))
    white, control = np.std(sums, 0) / 20**0.5
    assert white < 1.6
    assert control > 2.5


def test_only_the_last_ten_count_and_nothing_is_nothing():
    assert KeptBatches().cosine(lambda kept: np.ones(1)) is None
    assert KeptBatches().foretold(lambda kept: np.ones(1), N) is None
    assert len(kept(30)) == 10


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
    now = keeper.update(Drift(-0.006, 0.002**2), 5)
    assert now.change == pytest.approx(-0.012)
    assert (now.low, now.high) == pytest.approx((-0.012 - 1.96 * 0.004, -0.012 + 1.96 * 0.004))
    assert keeper.update(None, 5) == now
    for _ in range(20):
        now = keeper.update(Drift(-0.006, 0.002**2), 5)
    assert now.change == pytest.approx(-0.012)
    assert now.high - now.low == pytest.approx(2 * 1.96 * 0.004 / 3**0.5, rel=0.01)
    for _ in range(20):
        now = keeper.update(Drift(0.006, 0.002**2), 5)
    assert now.change == pytest.approx(0.012, rel=1e-3)  # what was before is forgotten
