"""Which prompts stand for the pool, and when a probe is due."""

import itertools

import numpy as np
import pytest

from passk_guard import HeldOutPool
from passk_guard.prompts.pool import row_labels
from passk_guard.runtime.schedule import Schedule


def test_pool_draws_without_replacement():
    pool = HeldOutPool([{"prompt": str(i)} for i in range(10)], seed=3)
    first = [i for _ in range(2) for i in pool.draw(4)]
    assert len(set(first)) == 8
    across = pool.draw(4)  # two left over, two of the next round
    assert len(set(across)) == 4
    assert set(range(10)) - set(first) <= set(across)
    assert len(pool.draw(99)) == 10


def test_fixed_schedule():
    schedule = Schedule(every=5)
    due = []
    for step in range(21):
        if schedule.due(step):
            due.append(step)
            schedule.did("probe", step, 100.0)
        schedule.trained(1.0)
    assert due == [0, 5, 10, 15, 20]


def test_a_second_run_of_the_same_trainer_is_probed_from_its_start():
    schedule = Schedule(every=5)
    schedule.did("probe", 100, 1.0)
    assert schedule.due(0) == "probe"


def simulated(schedule, steps, step_time):
    """A run on a clock of its own; steps of the probes and of the re-scorings."""
    due = {"probe": [], "rescore": []}
    for step in range(steps):
        task = schedule.due(step)
        if task is not None:
            due[task].append(step)
            if task == "probe":
                schedule.did("probe", step, 3.0 if step else 12.0, again=3.0)
            else:
                schedule.did("rescore", step, 0.4)
        schedule.trained(step_time(step))
    return due


@pytest.mark.parametrize("budget", [0.01, 0.02, 0.05])
@pytest.mark.parametrize(
    "step_time",
    [
        lambda step: 1.0,
        lambda step: 0.5 + step / 1000,
        lambda step: 1.0 if step % 500 < 250 else 0.3,
    ],
    ids=["constant", "growing", "changing"],
)
def test_a_budget_is_kept_at_the_end_whatever_steps_cost(budget, step_time):
    schedule = Schedule(max_overhead=budget)
    due = simulated(schedule, 3000, step_time)
    assert schedule.share <= budget
    assert schedule.share > 0.7 * budget  # and is used
    assert all(b - a >= 10 for a, b in itertools.pairwise(due["probe"]))
    assert len(due["rescore"]) > len(due["probe"])
    assert due["rescore"][0] < 100  # the cheap look comes long before the dear one


def test_spacing_by_the_last_share_alone_would_overrun():
    """Negative control: without the next probe's own cost in the sum, the budget is exceeded."""
    schedule = Schedule(max_overhead=0.05)
    schedule.did("probe", 0, 12.0, again=0.0)
    schedule.trained(228.0, 228)
    assert schedule.due(228) == "probe"
    schedule.did("probe", 228, 3.0)
    assert schedule.share > 0.05


def test_both_settings_the_budget_but_never_closer():
    schedule = Schedule(every=100, max_overhead=0.5)
    due = simulated(schedule, 1000, lambda step: 10.0)
    assert due["probe"] == list(range(0, 1000, 100))


def test_forecast_matches_the_run():
    schedule = Schedule(max_overhead=0.05)
    simulated(schedule, 8, lambda step: 1.0)
    forecast = schedule.forecast(3000)
    assert forecast.probe_steps == pytest.approx(3.0)
    due = simulated(Schedule(max_overhead=0.05), 3000, lambda step: 1.0)
    assert forecast.probes == pytest.approx(len(due["probe"]), rel=0.15)
    assert forecast.interval == pytest.approx(due["probe"][-1] - due["probe"][-2], rel=0.15)


def test_schedule_resumes():
    one = Schedule(max_overhead=0.05)
    simulated(one, 400, lambda step: 1.0)
    other = Schedule(max_overhead=0.05)
    other.load_state_dict(one.state_dict())
    other.costs = one.costs
    assert [one.due(s) for s in range(400, 500)] == [other.due(s) for s in range(400, 500)]


def test_a_weighted_reference_stands_for_the_pool():
    """Its weighted mean is the pool's, on the mean over seeds; at most one weight is certain."""
    weights = [0.0, 0.2, 0.5, 1.0, 1.0, 2.0, 3.3] * 10 + [100.0]
    rows = [{"prompt": "x", "traffic": w} for w in weights]
    values = np.random.default_rng(0).random(len(rows))
    seen = []
    for seed in range(400):
        ids, each = HeldOutPool(rows, seed=seed, weight_by="traffic").reference(24)
        assert len(set(ids)) == len(ids)
        assert abs(len(ids) - 24) <= 1
        assert each.mean() == pytest.approx(1)
        assert not any(weights[i] == 0 for i in ids)
        assert len(rows) - 1 in ids
        seen.append(each @ values[ids] / each.sum())
    want = np.average(values, weights=weights)
    assert np.mean(seen) == pytest.approx(want, abs=4 * np.std(seen) / 20)


def test_a_reference_as_large_as_the_pool_is_the_pool():
    rows = [{"prompt": "x", "traffic": w} for w in (1.0, 2.0, 5.0)]
    ids, each = HeldOutPool(rows, weight_by="traffic").reference(8)
    assert (each[np.argsort(ids)] * 8 / 3).tolist() == pytest.approx([1.0, 2.0, 5.0])
    ids, each = HeldOutPool(rows).reference(8)
    assert sorted(ids) == [0, 1, 2]
    assert each.tolist() == [1.0] * 3


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, -1.0, 1.0, 1.0], "numbers >= 0"),
        ([1.0, float("nan"), 1.0, 1.0], "numbers >= 0"),
        ([1.0, "a", 1.0, 1.0], "numbers >= 0, not all of them 0. Row 1 has 'a'"),
        ([0.0] * 4, "not all of them 0"),
    ],
)
def test_bad_weights(weights, message):
    rows = [{"prompt": "x", "traffic": w} for w in weights]
    with pytest.raises(ValueError, match=message):
        HeldOutPool(rows, weight_by="traffic")


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"weight_by='traffic' names no column of prompts: row 0"):
        HeldOutPool([{"prompt": "x"}] * 4, weight_by="traffic")
    with pytest.raises(ValueError, match=r"group_by='kind' names no column"):
        row_labels([{"prompt": "x"}] * 4, "kind")
    with pytest.raises(ValueError, match=r"group_by='id' has 40 different values"):
        row_labels([{"prompt": "x", "id": i} for i in range(40)], "id")
