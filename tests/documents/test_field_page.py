"""Figures of the page on tasks that nobody built to conflict are those of its commands."""

from extras import needs

needs("reasoning_gym", "trl")

import re
import sys
from statistics import NormalDist, geometric_mean

import numpy as np
from places import ROOT
from quoted import call_all, figures, figures_left_out, share, words

sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))

from field.agreement import agreement_table, differences
from field.sizes import FULL
from field.starts import starts_table
from field.table import field_table
from field_records import (
    NUMBERS,
    RECORDS,
    RUNS,
    SEEDS,
    alarm,
    at_level,
    by_problem,
    change,
    look,
    mean_of,
    record,
    said,
    several,
)

from passk_guard import PassKGuardConfig

FIELD = words("docs/field.md")
ERRORS = NormalDist().inv_cdf(1 - PassKGuardConfig().false_alarms / 2)  # that an alarm asks for
RATES = [3e-5, 6e-5, 1e-4]


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


def test_what_all_of_it_says():
    lost = {run: -change(run[0], "watched", run[1]) for run in RUNS}
    fell = [run for run in RUNS if lost[run] > 1]
    seen = [run for run in fell if alarm(run[0], "watched", run[1])]
    count, hit, missed = (NUMBERS[len(x)] for x in (fell, seen, set(fell) - set(seen)))
    assert f"In all, {count} of {NUMBERS[len(RUNS)]} pass@8 runs end more than a point" in FIELD
    assert f"point lower, {max(lost.values()):.1f} points at most" in FIELD
    assert f"An alarm came in {hit} of them; {missed} were missed" in FIELD
    others = [run for run in RUNS if run not in fell and alarm(run[0], "watched", run[1])]
    assert others == [("countdown", 1)]  # "a loss that came back by itself"
    assert change("countdown", "watched", 1, 20) < -2  # so that docs/alarm.md says "a real loss"
    guarded = [run for run in RUNS if alarm(run[0], "guarded", run[1])]
    assert sorted(guarded) == sorted([*seen, *others])
    ends = several((change(name, "guarded", seed) for name, seed in guarded), "+.1f")
    assert f"end at {ends} points" in FIELD
    assert not [run for run in RUNS if alarm(run[0], "grpo", run[1])]
    down = NUMBERS[sum(change(name, "grpo", seed) < -1 for name, seed in RUNS)]
    assert f"No alarm came in plain GRPO, {down} of whose runs lost more than a point." in FIELD


def test_what_multiplication_teaches():
    name, hit = "multiplication", []
    for seed in SEEDS:
        points, start = by_problem(name, "watched", seed)
        solved = np.array(start["counts"]) >= FULL.many / 2
        assert points[solved].sum() < 0.95 * points.sum()  # "nearly all"
        hit.append(-at_level(name, "watched", "4 by 1 digits", seed))
    assert f"4 by 1 digits lose {several(hit, '.1f')} points" in FIELD
    alarms = [alarm(name, "watched", seed) for seed in SEEDS]
    assert f"It came at steps {several(alarms, 'd')}." in FIELD
    first = [look(name, "watched", seed, step) for seed, step in zip(SEEDS, alarms, strict=True)]
    assert [one["alarm"] for one in first] == [["level"]] * 3
    assert [one["cause"] for one in first] == ["unknown", "falling", "falling"]
    assert look(name, "watched", 0, 50)["cause"] == "falling"
    guarded, watched = (
        several((-change(name, arm, seed) for seed in SEEDS), ".1f")
        for arm in ("guarded", "watched")
    )
    assert f"end {guarded} points below the start instead of {watched}." in FIELD
    lost = [-change(name, "grpo", seed) for seed in SEEDS]
    assert [one > 1 for one in lost] == [False, True, False]
    seen = said(name, "grpo", 1, 100, -1)
    assert f"lost {lost[1]:.1f} points with one seed, of which the guard saw {seen}" in FIELD


def test_what_countdown_teaches():
    two, four = (at_level("countdown", "watched", f"{n} numbers") for n in (2, 4))
    assert f"with two numbers lose {-two:.1f} points, those with four gain {four:.1f}" in FIELD
    dip = -change("countdown", "watched", 1, 20)
    assert f"With the second seed {dip:.1f} points of pass@1 were gone at step 20" in FIELD
    assert alarm("countdown", "watched", 1) == 10
    at = [look("countdown", "watched", 1, step)["open"] for step in (10, 20, 30)]
    assert at == [True, True, False]
    curve = [one["inner"] for one in record("countdown", "start")["probe"]["curve"]]
    fourth, eighth = curve[3] / curve[0], curve[7] / curve[0]
    assert f"does {share(fourth, 2)} of what a pass@1 step does for pass@1" in FIELD
    assert abs(eighth) < 0.02  # "nothing"
    wrong = "countdown, wrong labels"
    lost, told = -change(wrong, "watched", 1), said(wrong, "watched", 1, 100)
    assert (
        f"second seed: {lost:.1f} points were gone in the end, and the guard said {told}." in FIELD
    )


def test_what_expressions_teach():
    name, wrong = "expressions", "expressions, wrong labels"
    lost = several((-change(name, "watched", seed, 80) for seed in SEEDS), ".1f")
    assert f"pass@8 training lost {lost} points by step 80" in FIELD
    told = several((said(name, "watched", seed, 80) for seed in SEEDS), "")
    assert f"it said {told} there" in FIELD
    assert not any(alarm(name, "watched", seed) for seed in SEEDS)
    errors = [100 * look(name, "watched", seed, 100)["change_se"] for seed in SEEDS]
    needed = several((1 + ERRORS * error for error in errors), ".1f")
    assert f"a loss must be {needed} points to be sure" in FIELD
    assert f"Plain GRPO lost {-change(name, 'grpo', 2):.1f} points with the third seed" in FIELD
    assert [alarm(wrong, "watched", seed) for seed in SEEDS] == [10, None, None]
    loss = said(wrong, "watched", 0, 10, -1)
    assert f"at step 10, when the guard put the loss at {loss} points" in FIELD
    assert change(wrong, "guarded", 0) > 1  # "above its start"
    early = several((-change(wrong, "watched", seed, 20) for seed in SEEDS[1:]), ".1f")
    seen = several((said(wrong, "watched", seed, 20, -1) for seed in SEEDS[1:]), "")
    assert f"{early} points were gone at step 20, of which the guard saw {seen}." in FIELD


def test_whether_the_guards_figure_is_the_truth_of_its_own_prompts():
    starts = {(one["task"], one["seed"]): one for one in RECORDS if one["arm"] == "start"}
    watched = [one for one in RECORDS if one["arm"] in ("watched", "grpo")]
    assert len(watched) == 36  # "over the 36 runs that it only watched"
    last = [differences(starts[one["task"], one["seed"]], one, FULL)[-1][0] for one in watched]
    assert f"the guard stands {mean_of(last)} points above the test set" in FIELD
    found = figures("field_on_the_pool.json")
    runs = [(one["task"], one["seed"]) for one in found]
    assert sorted(runs) == [run for run in RUNS if run[0].startswith("expressions")]
    guard, truth = (np.array([one[key] for one in found]) for key in ("guard", "truth"))
    less, error = guard[:, 0] - truth[:, 0], np.hypot(guard[:, 1], truth[:, 1])
    test = [change(name, "watched", seed, 20) / 100 for name, seed in runs]
    assert f"The test set is {mean_of(test - truth[:, 0])} points from it" in FIELD
    inside = NUMBERS[(np.abs(less) < 1.96 * error).sum()]
    assert (
        f"The guard is {mean_of(less)} points from it on average, holds it in {inside} of six 95 % "
        f"intervals, and errs by {np.sqrt(np.mean((less / error) ** 2)):.1f} times the error"
    ) in FIELD


def test_what_probes_of_the_starts_said():
    for name, text in (
        ("multiplication", "Nothing opposes pass@1 (z {} on 512 prompts)"),
        ("multiplication, wrong labels", "The gradients agree (z {})"),
        ("expressions", "may oppose pass@1 or not (z {}, all unsure)"),
        ("expressions, wrong labels", "The gradients rather agree (z {})"),
    ):
        probes = [record(name, "start", seed)["probe"] for seed in SEEDS]
        assert text.format(several((probe["test"]["z"] for probe in probes), "+.1f")) in FIELD


def test_errors_after_a_hundred_steps():
    errors = [100 * one["looks"][-1]["change_se"] for one in RECORDS if one["arm"] != "start"]
    assert f"the error of the change was {min(errors):.1f} to {max(errors):.1f} points" in FIELD
    assert f"must exceed the tolerance by {ERRORS:.1f} errors" in FIELD
    assert PassKGuardConfig().pass1_tolerance == 0.01


def test_how_many_rollouts_per_prompt():
    found = figures("field_rollouts_per_prompt.json")
    assert {one["n"] * one["prompts"] > 8000 for one in found} == {True}
    assert len({(one["task"], one["seed"]) for one in found}) == 6  # "three tasks, two starts each"
    least = {}
    for key, text in (
        ("inner_error", "what a pass@8 step does to pass@1 is {} (a geometric mean"),
        ("error", "that of pass@1 {}. 2k it stays for probes"),
    ):
        beside = {n: geometric_mean(times_that_of_12(found, key, n)) for n in (9, 16, 32, 64)}
        *most, last = (f"{share(times, 2)} with {n}" for n, times in beside.items())
        assert text.format(f"{', '.join(most)} and {last}") in FIELD
        least[key] = min({12: 1.0, **beside}, key={12: 1.0, **beside}.get)
    assert least == {"inner_error": 16, "error": 9}
    apart = [max(x) / min(x) for n in (9, 16) for x in [times_that_of_12(found, "inner_error", n)]]
    assert 1.8 < max(apart) < 2.5  # "by a factor of two"


def times_that_of_12(found, key, n):
    """An error in units of that of the same start with 12 rollouts per prompt."""
    by_start = {(one["task"], one["seed"], one["n"]): one[key] for one in found}
    return [error / by_start[(*at, 12)] for (*at, m), error in by_start.items() if m == n]


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
