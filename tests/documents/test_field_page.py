"""What documents say of tasks that nobody built to conflict is what the field study found."""

from extras import needs

needs("reasoning_gym", "trl")

import json
import sys
from statistics import mean

import pytest
from places import ROOT
from tables import FIELD, RESULTS, figures, words

from passk_guard import PassKGuardConfig

sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))

from field.outcomes import outcome
from field.sizes import FULL, TASKS

RECORDS = [json.loads(path.read_text()) for path in sorted((RESULTS / "field").glob("*.json"))]
BY_RUN = {(run["task"], run["seed"], run["arm"]): run for run in RECORDS}
NUMBERS = ["none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
EVIDENCE = words("docs/evidence.md")


@pytest.mark.parametrize(("document", "make"), FIELD)
def test_a_table_is_that_of_the_records(document, make):
    assert f"\n\n{make()}\n" in (ROOT / document).read_text()


def test_how_many_runs_fell():
    lost = {}
    for (task, seed, arm), run in BY_RUN.items():
        if arm in ("watched", "grpo"):
            found = outcome(BY_RUN[task, seed, "start"], run, FULL)
            lost[task, seed, arm] = -100 * found.change
            assert found.change_se < 0.0115  # "good to about a point"
    watched = {key: points for key, points in lost.items() if key[2] == "watched"}
    tolerance = 100 * PassKGuardConfig().pass1_tolerance
    fell = [key for key, points in watched.items() if points > tolerance]
    assert len(watched) == 18
    assert f"{NUMBERS[len(fell)].capitalize()} of eighteen pass@8 runs end more than" in EVIDENCE
    said = f"more than a point of pass@1 from {len(fell)} of {len(watched)} runs all the same, "
    assert f"{said}{max(watched.values()):.1f} points at most" in words("README.md")


def test_replayed_losses_are_seen_in_time():
    late = 0.035
    assert f"lost {100 * late:.1f} points or more had an alarm by the look after that" in EVIDENCE
    for run in figures("field_replay.json"):
        lost = [-look["truth"][0] for look in run["looks"]]
        alarm = next((i for i, look in enumerate(run["looks"]) if look["alarm"]), None)
        fell = next((i for i, points in enumerate(lost) if points >= late), None)
        assert (alarm is None) == (fell is None), run["task"]
        assert alarm is None or alarm <= fell + 1, run["task"]


def test_every_record_is_of_the_settings_that_the_page_tells():
    for run in RECORDS:
        if run["arm"] != "start":
            assert not run["failures"]
            assert [look["step"] for look in run["looks"]] == list(range(0, 101, FULL.every))
    (rate,) = {task.learning_rate for task in TASKS.values()}
    gains = {}
    for one in figures("field_learning_rates.json"):
        gains.setdefault(one["learning_rate"], []).append(one["change"])
    assert max(gains, key=lambda tried: mean(gains[tried])) == rate
    assert (FULL.steps, FULL.many, FULL.test) == (100, 64, 300)
