"""Figures of the page on tasks that nobody built to conflict are those of its commands."""

from extras import needs

needs("reasoning_gym", "trl")

import json
import re
import sys
from statistics import NormalDist

import numpy as np
from places import ROOT
from quoted import RESULTS, call_all, figures, figures_left_out, share, words

sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))

from field.agreement import agreement_table
from field.sizes import FULL
from field.starts import starts_table
from field.table import field_table

from passk_guard import PassKGuardConfig

FIELD = words("docs/field.md")
RATES = [3e-5, 6e-5, 1e-4]
RECORDS = [json.loads(path.read_text()) for path in sorted((RESULTS / "field").glob("*.json"))]


def test_losses_on_prompts_that_were_always_right():
    found = [one for one in figures("field_always_right.json") if one["task"] == "multiplication"]
    (start,) = {one["start"] for one in found}
    (always,) = {one["always_right"] for one in found}
    assert (
        f"solves {share(start, 2)} of 512 held-out prompts, {100 * always:.0f} % of them" in FIELD
    )
    for one in found:
        own = one["ratios" if one["exact"] else "first order"]["p"]
        cells = (f"{100 * v:+.1f} ± {100 * se:.1f}" for v, se in (one["truth"], one["guard"], own))
        assert f"| {one['step']} | {' | '.join(cells)} |" in FIELD


def test_how_long_stored_rollouts_last():
    found = figures("field_estimators.json")
    rows = {(f"{one['rate']:g}", one["step"]): one for one in found["drift"]}
    assert f"it solves {share(found['start']['pass_at_1'], 2)} of its problems" in FIELD
    assert f"And rollouts of {found['start']['tokens']:.0f} tokens age" in FIELD
    for rate, step in re.findall(r"\| (\de-\d), (\d+) \|", FIELD):
        one = rows[f"{float(rate):g}", int(step)]
        said = (
            f"{share(one['spread']['size'])} | {100 * one['se']:.1f} | "
            f"{100 * one['sampled_again_se']:.1f} | {100 * one['inside']:.1f} % |"
        )
        assert f"| {rate}, {step} | {said}" in FIELD
    near = [one["sampled_again_se"] / one["se"] for key, one in rows.items() if key[0] == "1e-05"]
    assert 1.9 < min(near) < max(near) < 5.1
    assert "are two to five times sharper than sampling the same prompts again" in FIELD
    worst = min(one["spread"]["of_two_tokens"] for one in rows.values())
    assert f"at the same v their effective sample size is {share(worst, 2)} at worst" in FIELD


def test_what_one_probe_knows_of_the_gradients_of_long_completions():
    probes = figures("field_estimators.json")["gradients"]["many prompts"]["probes"]
    forward, right, back = probes.values()
    inside = [100 * one["pooled"][n]["inside"] for one in probes.values() for n in "18"]
    assert (
        f"The true cosine of the pass@8 with the pass@1 gradient is {forward['cosine']:+.2f}"
        in FIELD
    )
    assert f"holds the truth in {inside[0]:.1f} % of single probes and in all of eight" in FIELD
    assert inside[1] == 100
    assert f"a right angle, in {inside[2]:.1f} % and {inside[3]:.1f} %; mirrored" in FIELD
    assert (
        f"so that it is {back['cosine']:.2f}, in {inside[4]:.1f} % and {inside[5]:.1f} %." in FIELD
    )
    wide = [forward["pooled"][n]["width"] for n in "18"]
    assert f"{wide[0]:.2f} out of 2 after one probe, {wide[1]:.2f} after eight" in FIELD
    wrong = [one["surely_below"] for one in forward["pooled"].values()]
    wrong += [one["surely_above"] for one in back["pooled"].values()]
    assert f"A sure sign is wrong in {100 * max(wrong):.1f} % of the probes at worst" in FIELD
    opposed = 100 * right["naive"]["8"]["surely_below"]
    assert f"surely opposed to pass@1 in {opposed:.1f} % of eight pooled probes" in FIELD


def test_the_tables_of_the_field_study():
    for table in (field_table, agreement_table, starts_table):
        for line in table(RECORDS, FULL).splitlines():
            assert " ".join(line.split()) in FIELD


def record(name, arm, seed=0):
    (found,) = [r for r in RECORDS if (r["task"], r["arm"], r["seed"]) == (name, arm, seed)]
    return found


def by_problem(name, arm):
    """Change of each test problem's success rate, in points, and the start's record."""
    start = record(name, "start")
    last = np.array(record(name, arm)["counts"]["100"])
    return 100 * (last - np.array(start["counts"])) / FULL.many, start


def at_level(name, arm, level):
    change, start = by_problem(name, arm)
    return change[np.array(start["levels"]) == level].mean()


def test_what_multiplication_teaches():
    change, start = by_problem("multiplication", "watched")
    solved = np.array(start["counts"]) >= FULL.many / 2
    assert -change[solved].sum() / len(change) > -change.mean()  # "all of it"
    hit = at_level("multiplication", "watched", "4 by 1 digits")
    assert f"4 by 1 digits lose {-hit:.1f}" in FIELD
    looks = {look["step"]: look for look in record("multiplication", "watched")["looks"]}
    said = [f"{100 * looks[step]['change']:.1f}" for step in (20, 30, 40)]
    assert "{} at step 20, {} at 30 and {} at 40".format(*said) in FIELD
    assert (looks[40]["alarm"], looks[40]["cause"]) == (["level"], "unknown")
    assert looks[50]["cause"] == "falling"


def test_what_countdown_teaches():
    two, four = (at_level("countdown", "watched", f"{n} numbers") for n in (2, 4))
    assert f"with two numbers lose {-two:.1f} points, those with four gain {four:.1f}" in FIELD
    curve = [one["inner"] for one in record("countdown", "start")["probe"]["curve"]]
    fourth, eighth = curve[3] / curve[0], curve[7] / curve[0]
    assert f"does {share(fourth, 2)} of what a pass@1 step does for pass@1" in FIELD
    assert abs(eighth) < 0.02  # "nothing"


def test_what_expressions_teach():
    start, run = record("expressions", "start"), record("expressions", "watched")
    lost = np.mean(start["counts"]) / FULL.many - np.mean(run["counts"]["80"]) / FULL.few
    assert f"{100 * lost:.1f} points by step 80" in FIELD
    (look,) = [one for one in run["looks"] if one["step"] == 80]
    assert f"it said {100 * look['change']:.1f} ± {100 * look['change_se']:.1f} there" in FIELD
    assert not any(one["alarm"] for one in run["looks"])
    first, second = record("expressions, wrong labels", "watched")["looks"][:2]
    assert (first["alarm"], second["alarm"], second["step"]) == (None, ["level"], 10)
    loss = f"{-100 * second['change']:.1f} ± {100 * second['change_se']:.1f}"
    assert f"when the guard put the loss at {loss} points" in FIELD


def test_what_probes_of_the_starts_said():
    for name, said in (
        ("multiplication", "Nothing opposes pass@1 (z {} on 512 prompts)"),
        ("multiplication, wrong labels", "The gradients agree, surely (z {})"),
        ("expressions", "from the start (z {}, not sure)"),
        ("expressions, wrong labels", "The gradients agree (z {})"),
    ):
        probe = record(name, "start")["probe"]
        assert said.format(f"{probe['test']['z']:+.1f}") in FIELD


def test_errors_after_a_hundred_steps():
    errors = [100 * one["looks"][-1]["change_se"] for one in RECORDS if one["arm"] != "start"]
    assert f"the error of the change was {min(errors):.1f} to {max(errors):.1f} points" in FIELD
    needed = NormalDist().inv_cdf(1 - PassKGuardConfig().false_alarms / 2)
    assert f"must exceed the tolerance by {needed:.1f} errors" in FIELD


def test_every_record_is_of_the_settings_that_the_page_tells():
    for one in RECORDS:
        if one["arm"] != "start":
            assert one["trained_on"] == FULL.steps * 256
            assert not one["failures"]
            assert [look["step"] for look in one["looks"]] == list(range(0, 101, FULL.every))
    (rate,) = {task.learning_rate for task in FULL.tasks.values()}
    gains = figures("field_learning_rates.json")
    total = {r: sum(one["change"] for one in gains if one["learning_rate"] == r) for r in RATES}
    assert max(total, key=total.get) == rate
    said = [
        ", ".join(f"{100 * one['change']:+.1f}" for one in gains if one["task"] == name)
        for name in ("multiplication", "countdown", "expressions")
    ]
    assert "({} points on multiplication, {} on Countdown, {} on expressions".format(*said) in FIELD
    costs = [100 * one["overhead"] for one in RECORDS if one["arm"] != "start"]
    assert f"{min(costs):.0f} to {max(costs):.0f} % of a run's time" in FIELD


def test_no_figure_of_the_page_is_left_out():
    call_all(globals(), but="test_no_figure_of_the_page_is_left_out")
    assert figures_left_out(FIELD) == []
