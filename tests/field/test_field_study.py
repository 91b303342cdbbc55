"""The field study in small: real warm-up, probe and training, records, table and pictures."""

from extras import needs

needs("reasoning_gym", "trl", "matplotlib")

import json
import sys

import numpy as np
import pytest
from places import TESTS

sys.path.insert(0, str(TESTS / "benchmarks"))

from field import pictures
from field.outcomes import changes, differences, outcome
from field.recorded import as_watched, file_of, one
from field.sizes import FULL, QUICK

NAME = "multiplication, wrong labels"


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    results, cache = (tmp_path_factory.mktemp(name) for name in ("field", "cache"))
    runs = {arm: (NAME, 0, arm) for arm in ("start", "guarded")}
    for run in runs.values():
        one(run, results, cache, QUICK)
    return {arm: json.loads(file_of(run, results).read_text()) for arm, run in runs.items()}


def test_records_hold_what_tables_and_pictures_need(records, tmp_path):
    start, guarded = records["start"], records["guarded"]
    assert len(start["counts"]) == QUICK.test
    assert guarded["counts"].keys() == {"2", "4"}
    assert [look["step"] for look in guarded["looks"]] == [0, 2, 4]
    assert not guarded["failures"]
    assert guarded["guarding"] >= 3 * QUICK.reference_prompts * 2
    assert outcome(start, guarded, QUICK).lowest <= 0
    by_run = {(0, arm): record for arm, record in records.items()}
    pictures.draw(NAME, by_run, QUICK, tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 5000


def test_an_outcome_is_what_its_counts_say():
    start = {
        "weights_at_start": "a",
        "counts": [32, 64, 0],
    }
    run = {
        **{"task": NAME, "seed": 0, "weights_at_start": "a"},
        "counts": {"20": [4, 16, 0], "100": [64, 64, 64]},
        "looks": [{"step": 0, "alarm": None}, {"step": 10, "alarm": ["drift"]}],
    }
    found = outcome(start, run, FULL)
    assert found.change == pytest.approx(0.5)
    assert found.lowest == pytest.approx(20 / 48 - 0.5)
    assert (found.alarm, found.lost) == (10, pytest.approx((20 / 48 - 0.5) / 2))
    assert list(changes(start, run, FULL)) == [0, 20, 100]
    with pytest.raises(ValueError, match="seed 0: make start and training on one machine"):
        outcome({**start, "weights_at_start": "b"}, run, FULL)


def test_the_guard_is_compared_with_the_truth_at_the_looks_that_both_have():
    start = {"task": NAME, "seed": 0, "arm": "start", "counts": [32, 64, 0]}
    look = {"change": 0.1, "change_se": 0.03, "alarm": None}
    looks = [{"step": step, **look} for step in (0, 20, 30, 100)]
    counts = {"20": [8, 16, 4], "40": [0, 0, 0], "100": [48, 64, 16]}
    run = {**start, "arm": "grpo", "counts": counts, "looks": looks}
    found = np.array(differences(start, run, FULL))
    truth = np.array([[0, 0, 0.25], [0.25, 0, 0.25]])
    assert found[:, 0] == pytest.approx(0.1 - truth.mean(1))
    assert found[:, 1] == pytest.approx(
        np.hypot(0.03, truth.std(1, ddof=1) * (1 / 3 + 1 / 1024) ** 0.5)
    )


def test_only_a_guarded_run_without_an_alarm_is_taken_from_the_watched_one(tmp_path):
    looks = {1: [None, None], 2: [None, ["level"]], 0: [None]}
    for seed, alarms in looks.items():
        watched = {"arm": "watched", "looks": [{"step": 0, "alarm": alarm} for alarm in alarms]}
        file_of((NAME, seed, "watched"), tmp_path).write_text(json.dumps(watched))
    found = {seed: as_watched((NAME, seed, "guarded"), tmp_path) for seed in (0, 1, 2, 3)}
    assert (found[1]["as"], found[1]["arm"]) == ("watched", "guarded")
    assert found[0] == found[2] == found[3] == {}  # always made; an alarm; none to take
    assert not as_watched((NAME, 1, "grpo"), tmp_path)
