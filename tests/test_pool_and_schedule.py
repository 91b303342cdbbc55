"""Which prompts a probe draws, and when a probe is due."""

import itertools

import pytest

from passk_guard import HeldOutPool
from passk_guard.pool import rows_from
from passk_guard.schedule import Schedule


def test_pool_draws_without_replacement():
    pool = HeldOutPool([{"prompt": str(i)} for i in range(10)], seed=3)
    first = [i for _ in range(2) for i in pool.draw(4)]
    assert len(set(first)) == 8
    across = pool.draw(4)  # two left over, two of the next round
    assert len(set(across)) == 4
    assert set(range(10)) - set(first) <= set(across)
    assert len(pool.draw(99)) == 10


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "prompts is empty"),
        ("1 + 1", "must be a list"),
        ([{"question": "?"}], "no 'prompt' key"),
        ([""], "non-empty string"),
        ([None], "non-empty string"),
    ],
)
def test_bad_prompts(prompts, message):
    with pytest.raises(ValueError, match=message):
        rows_from(prompts)


def test_fixed_schedule():
    schedule = Schedule(every=5)
    due = []
    for step in range(21):
        if schedule.due(step):
            due.append(step)
            schedule.probed(step, 100.0)
        schedule.trained(1.0)
    assert due == [0, 5, 10, 15, 20]


def test_a_second_run_of_the_same_trainer_is_probed_from_its_start():
    schedule = Schedule(every=5)
    schedule.probed(100, 1.0)
    assert schedule.due(0)


def test_budgeted_schedule_keeps_its_share():
    schedule = Schedule(max_overhead=0.05)
    due = []
    for step in range(2000):
        if schedule.due(step):
            due.append(step)
            schedule.probed(step, 3.0 if step else 12.0)
        schedule.trained(1.0)
    assert due[1] > 12 / 0.05 * 0.9
    assert schedule.share <= 0.05 + 3.0 / 2000
    assert all(b - a >= 10 for a, b in itertools.pairwise(due))
