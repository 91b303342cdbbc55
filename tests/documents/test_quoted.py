"""Figures in documents are those of the last run of the command beside them.

The commands leave their figures in ``tests/benchmarks/results``. To change a figure, run its
command and quote what it found.
"""

import json
import re
from inspect import signature
from pathlib import Path
from statistics import mean

import pytest
from places import ROOT
from quoted import RESULTS, Words, call_all, figures, figures_left_out, share, table, words

from passk_guard import PassKGuardConfig, probe_policy
from passk_guard.statistics.first_test import first_threshold
from passk_guard.statistics.paired_drift import _SAME
from passk_guard.statistics.policy_reading import _NIL
from passk_guard.statistics.sign_test import chance_of_look

DOCUMENTS = ["README.md", "CONTRIBUTING.md", "examples/README.md"]
DOCUMENTS += sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
COMPARED = {
    name: words(name)
    for name in (
        "README.md",
        "docs/alarm.md",
        "docs/choosing-numbers.md",
        "docs/control.md",
        "docs/reading-pictures.md",
        "docs/production.md",
        "docs/beside-other-work.md",
        "docs/checkpoints.md",
    )
}
README, ALARM, CHOOSING, CONTROL, PICTURES, PRODUCTION, WORK, CHECKPOINTS = COMPARED.values()


def points(value):
    return f"{100 * value:+.1f}".replace("+0.0", "0").replace("-0.0", "0")


def outcome(runs):
    """Change of pass@1, that of the worst seed, the lowest on the way; pass@8 at the end."""
    change = [float(run["end1"]) - float(run["start1"]) for run in runs]
    lowest = min(float(run["lowest1"]) - float(run["start1"]) for run in runs)
    return (
        f"{points(mean(change))} ({points(min(change))}; {points(lowest)})",
        share(mean(float(run["end8"]) for run in runs)),
    )


def of(runs, **wanted):
    found = [run for run in runs if all(run[key] == value for key, value in wanted.items())]
    assert found, wanted
    return found


LOOP, ALARMS = table("closed_loop.csv"), table("alarms.csv")
ROWS = {
    "pass@8 alone": "pass@8 alone",
    "pass@1 alone": "pass@1 alone",
    "k annealed": "k annealed from 8 to 1",
    "accuracy-weighted mix": "accuracy-weighted mix (Chen et al. 2025)",
    "FADE": "FADE (Decugis et al. 2026), which has no pass@k in it",
    "projection": "one-sided projection (A-GEM)",
    "memoryless": "memoryless λ*",
    "guard mix": '**guard, `"mix"`**',
    "guard adjust_k": 'guard, `"adjust_k"`',
}


@pytest.mark.parametrize("remedy", ROWS)
def test_a_row_of_the_closed_loop(remedy):
    change, eight = outcome(of(LOOP, task="ambiguous", remedy=remedy))
    bold = "**" if ROWS[remedy].startswith("**") else ""
    assert f"| {ROWS[remedy]} | {bold}{change}{bold} | {bold}{eight}{bold} |" in CONTROL


def test_static_mixes():
    mixes = [of(LOOP, task="ambiguous", remedy=f"static mix {w}") for w in (0.5, 0.6, 0.7)]
    changes, eights = zip(*(outcome(runs) for runs in mixes), strict=True)
    changes = [change.split()[0] for change in changes]
    row = f"| {' / '.join(changes)} | {' / '.join(eights)} |"
    assert f"| static mix .5 / .6 / .7, in hindsight {row}" in CONTROL


def test_there_is_no_row_that_was_not_run():
    control = (ROOT / "docs/control.md").read_text()
    section = re.search(r"## What it kept(.*?)In real runs", control, re.S)[1]
    lines = [line for line in section.splitlines() if re.match(r"\| .*\d", line)]
    assert len(lines) == 2 + len(ROWS) + 1 + len(OTHERS)  # two heads, and static mixes
    # Nor does one stand elsewhere: every cell that is a change in points is in that section.
    everywhere = [line for name in DOCUMENTS for line in (ROOT / name).read_text().splitlines()]
    changes = [line for line in everywhere if re.search(r"\| [*]*[-+]\d+\.\d(?! ±)[ *]", line)]
    assert changes == [line for line in lines if re.search(r"[-+]\d", line)]
    assert len(changes) == len(lines) - 2
    seeds = {(run["task"], run["remedy"]): set() for run in LOOP}
    for run in LOOP:
        seeds[run["task"], run["remedy"]].add(run["seed"])
    for (task, remedy), found in seeds.items():
        five = {"10", "11", "12", "13", "14"}
        own = five if remedy.startswith("guard") else {"0", "1", "2"}
        assert found == {"ambiguous": own, "too fast": five}.get(task, {"10"})


OTHERS = {
    "healthy": "healthy: every row wants the sum",
    "hard only": "hard only: every row wants the product",
    "other shape": "another shape: 3 layers of 96, 40 % products",
    "fast": "three times the learning rate",
}


@pytest.mark.parametrize("task", OTHERS)
def test_other_tasks(task):
    cells = []
    for remedy in ("pass@8 alone", "guard mix"):
        (run,) = of(LOOP, task=task, remedy=remedy)
        end, lowest = (float(run[key]) - float(run["start1"]) for key in ("end1", "lowest1"))
        cells.append(f"{points(end)} ({points(lowest)}) | {share(run['end8'])}")
    assert f"| {OTHERS[task]} | {' | '.join(cells)} |" in CONTROL


def test_steps_that_are_too_large():
    change, lowest, alarms = {}, {}, []
    for remedy in ("pass@8 alone", "pass@1 alone", "guard mix"):
        runs = of(LOOP, task="too fast", remedy=remedy)
        change[remedy] = [100 * (float(run["end1"]) - float(run["start1"])) for run in runs]
        lowest[remedy] = min(100 * (float(run["lowest1"]) - float(run["start1"])) for run in runs)
        alarms += [int(run["alarm"]) for run in runs if run["alarm"]]
    alone, pass1, guard = change.values()
    assert (
        f"pass@8 training ends {-mean(alone):.1f} points down on average ({-min(alone):.1f} at "
        f'worst), pass@1 training {mean(pass1):.1f} up, and pass@8 training with `"mix"` '
        f"{mean(guard):.1f} up, after {-lowest['guard mix']:.1f} lost at the lowest"
    ) in CONTROL
    assert (len(alarms), len(guard)) == (4, 5)
    assert f"Four of the five raised an alarm, at steps {min(alarms)} to {max(alarms)}." in CONTROL


def test_without_an_alarm_nothing_was_touched():
    guarded = [run for run in LOOP if run["remedy"].startswith("guard")]
    untouched = {run["task"] for run in guarded if run["same"] == "True"}
    assert untouched == {"healthy", "hard only", "too fast"}
    assert all((run["same"] == "True") == (run["alarm"] == "") for run in guarded)
    assert "On the first two there was no alarm, and the weights are bit for bit those" in CONTROL


def test_when_the_alarm_came():
    steps = sorted(int(r["alarm"]) for r in of(LOOP, task="ambiguous", remedy="guard mix"))
    first = f"on {steps.count(0)} of {len(steps)} seeds before the first step"
    assert f"The alarm came {first}, else at step {steps[-1]} of 300 at the latest" in CONTROL


def test_the_accuracy_weighted_mix_is_compared_with_the_guard():
    lost = [
        outcome(of(LOOP, task="ambiguous", remedy=remedy))[0].split()[0].lstrip("-")
        for remedy in ("accuracy-weighted mix", "guard mix")
    ]
    said = "its fixed weighting lost {} points where the guard lost {}"
    assert said.format(*lost) in WORK


def test_the_readme_says_what_the_table_of_control_says():
    alone, mix = (
        outcome(of(LOOP, task="ambiguous", remedy=remedy))
        for remedy in ("pass@8 alone", "guard mix")
    )
    lost = [change.split()[0].lstrip("-") for change, _ in (alone, mix)]
    runs = of(LOOP, task="ambiguous", remedy="guard mix")
    dips = [100 * (float(run["start1"]) - float(run["lowest1"])) for run in runs]
    said = (
        'pass@8 training by itself loses {} points of pass@1; with `"mix"` it ends {} points down, '
        "after {:.1f} at the lowest on the way ({:.1f} on the worst of five seeds), and pass@8 "
        "ends at {} instead of {}"
    )
    assert said.format(*lost, mean(dips), max(dips), mix[1], alone[1]) in README


def test_real_trainers():
    runs = table("closed_loop_trainers.csv")
    assert {run["seed"] for run in runs} == {"10", "11", "12", "13", "14"}

    def changes(when, **which):
        return [float(r[when]) - float(r["start1"]) for r in of(runs, **which)]

    def ends(host, action):
        return points(mean(changes("end1", host=host, action=action)))

    said = (
        '`"mix"` ends the same task at {} (TRL), {} (`Trainer`) and {} (Lightning), after a lowest'
    )
    mix = [ends(host, "mix") for host in ("trl", "trainer", "lightning")]
    low = changes("lowest1", action="mix")
    said = f"{said} of {{}} on average and {{}} at worst; with `anchor_prompts` at {{}} (`Trainer`)"
    anchors = [ends(host, "anchors") for host in ("trainer", "lightning")]
    mixed = *mix, points(mean(low)), points(min(low))
    assert said.format(*mixed, anchors[0]) in CONTROL
    low = changes("lowest1", action="anchors")
    said = "and {} (Lightning), after a lowest of {} on average and {} at worst: there the loss"
    assert said.format(anchors[1], points(mean(low)), points(min(low))) in CONTROL


def test_deepspeed():
    runs = table("deepspeed_floor.csv")
    assert {(run["stage"], run["action"]) for run in runs} == {
        (stage, action) for stage in "23" for action in ("warn", "mix")
    }
    said = (
        'at ZeRO-2 as at ZeRO-3, pass@1 went from {} to {} watched only, and to {} with `"mix"`, '
        "after {} at the lowest"
    )
    for stage in "23":
        (alone,), (mix,) = (of(runs, stage=stage, action=action) for action in ("warn", "mix"))
        found = (alone["start1"], alone["end1"], mix["end1"], mix["lowest1"])
        assert said.format(*(f"{float(v):.3f}".lstrip("0") for v in found)) in PRODUCTION
        assert {run["gradients"] for run in (alone, mix)} == {"watched layers"}
        assert {run["failures"] for run in (alone, mix)} == {"0"}
    least = re.search(r'"deepspeed>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())[1]
    assert f'Version("{least}")' in (ROOT / "integrations" / "_parallel.py").read_text()
    assert f"DeepSpeed from {least}, ZeRO-0 to 3" in PRODUCTION
    assert f"**DeepSpeed** from {least}, ZeRO-0 to 3, in all three trainers" in PRODUCTION


def test_the_run_with_the_defaults():
    mixed, alone = (of(figures("default_run.json"), action=a)[0] for a in ("mix", "warn"))
    alarm = mixed["alarms"][0]["step"]
    start, *rest = mixed["pass1"]  # every fifty steps
    at = rest[alarm // 50 - 1] + (rest[alarm // 50] - rest[alarm // 50 - 1]) * (alarm % 50) / 50
    lost = [100 * (start - value) for value in (at, rest[-1], alone["pass1"][-1])]
    said = (
        "2 % of a cheap run of {} steps of this task bought {} probes and {} re-scorings; the "
        "alarm came at step {} with {:.1f} points lost, and pass@1 ended {:.1f} points down "
        "instead of {:.1f}"
    )
    looks = (mixed["steps"], len(mixed["probes"]), mixed["rescores"])
    assert said.format(*looks, alarm, *lost) in CONTROL
    (long,) = figures("default_run_long.json")
    start, *rest = long["pass1"]
    lost = [100 * (start - value) for value in (rest[-1], min(rest))]
    said = (
        "A run of {} steps bought {} probes and {} re-scorings and ended {:.1f} points down, after "
        "a lowest of {:.1f}."
    )
    looks = (long["steps"], len(long["probes"]), long["rescores"])
    assert said.format(*looks, *lost) in CONTROL


def test_choosing_the_numbers():
    found = figures("choosing.json")
    z = {key: f"{probe['z']:.1f}" for key, probe in found["probes"].items()}
    error = {key: share(probe["error"]) for key, probe in found["probes"].items()}
    same_cost = ("113 x 9", "85 x 12", "64 x 16", "32 x 32", "16 x 64")
    said = (
        "one probe shows the conflict at {} standard errors with 9 rollouts per prompt, {} with "
        "12, {} with 16, {} with 32 and {} with 64"
    )
    assert said.format(*(z[key] for key in same_cost)) in CHOOSING
    prompts = [z[f"{m} x 16"] for m in (16, 32, 64, 128, 256)]
    said = (
        "16 prompts show that conflict at {} standard errors, 32 at {}, 64 at {}, 128 at {}, "
        "256 at {}"
    )
    assert said.format(*prompts) in CHOOSING
    assert f"falls from {error['16 x 16']} to {error['256 x 16']}" in CHOOSING
    scatter = f"± {196 * found['probes']['64 x 16']['error']:.0f} points at 64 prompts"
    assert PICTURES.count("points at 64 prompts") == PICTURES.count(scatter) == 2
    others = [words(name) for name in DOCUMENTS if "pictures" not in name]
    assert not any("points at 64 prompts" in other for other in others)


def test_coverage_of_the_first_probes():
    one, two, *more = (f"{100 * covered:.0f}" for covered in figures("choosing.json")["coverage"])
    said = "covered the truth in {} % of runs, of two in {} %, of three and more in {} to {} %"
    assert said.format(one, two, min(more), max(more)) in PICTURES


def test_calibration():
    found = figures("calibration.json")
    nulls = {key: rates for key, rates in found.items() if key.endswith("at 0.001")}
    (looks,) = {rates["looks"] for rates in nulls.values()}
    alarms = [round(1000 * 100 * rates["all"]) for rates in nulls.values()]
    said = f"{looks:,} simulated looks without a conflict".replace(",", " ")
    assert said in ALARM
    assert f"{min(alarms)} to {max(alarms)} per 100 000" in ALARM
    covers = [v for key, v in found.items() if key.startswith("coverage")]
    for name, what in (("inner", "inner product"), ("drift", "drift"), ("change", "change")):
        low, high = (100 * edge(c[name] for c in covers) for edge in (min, max))
        assert f"{what} {low:.0f} to {high:.0f} %" in ALARM
    worst = 100 * (1 - min(c["symmetric"] for c in covers))
    source = words("passk_guard/statistics/interval.py")
    assert f"misses the truth in up to {worst:.0f} % of batches" in source


SHOWN = {
    "today": "this one",
    "without step 0": "the same without its first look",
    "before": "a CUSUM of the inner product alone, and the level",
    "level alone": "the level alone",
}


@pytest.mark.parametrize("rule", SHOWN)
def test_alarms_of_a_rule(rule):
    cells = []
    for run in ("conflict 5e-6", "conflict 1e-5", "conflict 3e-5"):
        first = [r["alarms"].split()[0].split(":") for r in of(ALARMS, run=run, rule=rule)]
        steps, lost = zip(*((int(s), 100 * float(p)) for s, p, _ in first), strict=True)
        cells.append(f"step {mean(steps):.0f}, {mean(lost):.1f} ({max(lost):.1f})")
    assert f"| {SHOWN[rule]} | {' | '.join(cells)} |" in ALARM


def test_alarms_where_pass1_does_not_fall():
    quiet = of(ALARMS, rule="today")
    quiet = [run for run in quiet if not run["run"].startswith(("conflict", "too fast"))]
    looks = sum(int(run["looks"]) for run in quiet)
    assert not any(run["alarms"] for run in quiet)
    assert f"In {looks} looks at runs in which pass@1 does not fall it raised none" in ALARM


def test_what_the_alarm_misses():
    runs = of(ALARMS, rule="today", run="too fast")
    lost = [100 * (float(run["start"]) - float(run["lowest"])) for run in runs]
    raised = sum(bool(run["alarms"]) for run in runs)
    said = "lost {:.1f} to {:.1f} points at their lowest, and {} of {} raised an alarm"
    assert said.format(min(lost), max(lost), raised, len(runs)) in ALARM


def test_the_engines_agree():
    runs = figures("engines.json")["runs"]
    assert len(runs) == 9
    assert len({run["lr"] for run in runs}) == 3
    for engine in ("hooks", "sketched"):
        assert all(run[engine]["alarms"] == run["backward"]["alarms"] for run in runs)
    apart = [
        abs(z - other)
        for run in runs
        for engine in ("hooks", "sketched")
        for z, other in zip(run[engine]["z"], run["backward"]["z"], strict=True)
    ]
    assert "In nine runs at three learning rates" in PRODUCTION
    assert f"a z differed by at most {share(max(apart), 2)}" in PRODUCTION


def test_what_gradients_cost():
    found = figures("probe_cost.json")
    long, short = found["64 tokens"], found["8 tokens"]
    watched, other = ("hooked_sketch", "hooks"), ("sketch", "exact")

    def cost(runs, names):
        return [share(runs[name]["scored"], 2) for name in names]

    millions = long["parameters"] / 1e6
    said = f"log-probs for a {millions:.0f} M-parameter Llama cost {{}} (sketched) and {{}} (exact)"
    assert said.format(*cost(long, watched)) in PRODUCTION
    said = "rollouts of 64 tokens, and {} and {} with 8 tokens"
    assert said.format(*cost(short, watched)) in PRODUCTION
    said = "a scoring pass it is {} and {} with 64 tokens"
    assert said.format(*cost(long, other)) in PRODUCTION
    assert f"A sketch needs {share(long['hooked_sketch']['peak'], 2)} of the plain" in PRODUCTION


def test_what_memory_real_shapes_take():
    runs = figures("real_memory.json").values()

    def least_and_most(name):
        return (share(edge(run[name] for run in runs), 2) for edge in (min, max))

    said = "scores {} to {} of its peak, watched layers {} to {}, a backward per prompt 1.0 ("
    found = (*least_and_most("score"), *least_and_most("hooks"))
    assert said.format(*found) in PRODUCTION
    assert all(run["backward"] == 1 for run in runs)


def test_the_demo():
    found = figures("demo.json")
    start, lost, kept = found["start"], found["end, watched only"], found["end, guarded"]
    watched = (share(v) for v in (start[0], lost[0], start[1], lost[1]))
    said = "pass@1 goes from {} to {} while pass@8 goes from {} to {}"
    assert said.format(*watched) in README
    said = f"alarm at step {kept[2]} brings the remedy in, and the run ends at {share(kept[0])} and"
    assert f"{said} {share(kept[1])}" in README
    assert round(100 * (start[0] - lost[0])) == 10  # "by ten points", under the picture


def test_the_examples_table_is_what_the_plain_loop_printed():
    shown = re.search(r"```\n(step .*?)```", (ROOT / "examples/README.md").read_text(), re.DOTALL)
    printed = (RESULTS / "plain_loop.txt").read_text()
    lines = [line for line in shown[1].splitlines() if line.strip() != "..."]
    assert len(lines) == 8
    assert all(f"{line}\n" in printed for line in lines)


def test_constants_of_the_code():
    from passk_guard.gradients.auto import _MOST_UNKNOWN
    from passk_guard.gradients.hooks import _DIFFER
    from passk_guard.gradients.sketch import DEFAULT_SIZE

    assert f"2^{DEFAULT_SIZE.bit_length() - 1} numbers per prompt" in PRODUCTION
    assert f"numbers per prompt, and a standard error of {share(DEFAULT_SIZE**-0.5)}" in PRODUCTION
    assert f"differ by less than {share(_DIFFER, 2)} in its cosines" in PRODUCTION
    assert "more than a quarter of the parameters" in PRODUCTION
    assert _MOST_UNKNOWN == 0.25
    colours = re.search(r"quantile\(.*, 0\.(\d\d)\)", words("passk_guard/reporting/figures.py"))[1]
    assert f"colours end at the {colours}th percentile" in PICTURES
    problems = (ROOT / "examples/data/gsm8k/test-200.jsonl").read_text().splitlines()
    assert f"{len(problems)} problems of its test split" in words("examples/README.md")
    assert f"The {len(problems)} problems" in README


def test_shares_and_releases_of_the_code():
    from passk_guard.runtime.schedule import _DEFAULT_OVERHEAD

    for document, said in ((README, "probes may take {} %"), (PRODUCTION, "the guard gets {} %")):
        assert said.format(f"{100 * _DEFAULT_OVERHEAD:.0f}") in document
    sharded = (ROOT / "tests/integrations/test_sharded.py").read_text()
    least = ".".join(re.search(r">= \((\d+), (\d+)\)", sharded).groups())  # as it is tested
    assert f"FSDP2 (`transformers` from {least}," in PRODUCTION


def test_constants_of_the_inference_mismatch():
    from passk_guard.statistics.inference_mismatch import _LEAST, _MOST, _SHARE

    said = (
        f"more than {100 * _SHARE:.0f} % of its entropy apart, taken between {share(_LEAST)} and "
    )
    assert f"{said}{share(_MOST, 2)} nats per token" in ALARM
    # As source: the adapters need a trainer.
    assert "_PATIENCE = 1800.0" in words("integrations/_trl_vllm_server.py")
    assert "not for half an hour" in words("docs/failures.md")
    assert "_TOKENS_AT_ONCE = 2**20" in words("integrations/_trl_vllm.py")
    assert "up to a million tokens" in PRODUCTION


def test_constants_of_the_controller():
    from passk_guard.remedies.mpc_controller import _AIM, _RELEASE, _TRIED

    assert f"stand at {_AIM} `pass1_tolerance` below its floor" in CONTROL
    assert f"falls by at most {_RELEASE} per ten steps" in CONTROL
    assert f"Where four looks at λ > {_TRIED} have shown" in CONTROL


def test_the_table_of_settings_has_every_setting_with_its_default():
    from passk_guard.config import PassKGuardConfig

    section = (ROOT / "docs/choosing-numbers.md").read_text().split("## Choosing")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:2] == "| "]
    shown = {}
    for names, default, _ in rows:
        shown |= dict.fromkeys(re.findall(r"`(\w+)`", names), default.strip("`"))
    for name, setting in signature(PassKGuardConfig).parameters.items():
        default = setting.default
        if name == "memory_limit":
            assert shown[name] == f"{default / 2**30:.0f} GiB"
        elif isinstance(default, str):
            assert shown[name] == f'"{default}"'
        elif default is None or isinstance(default, bool):
            assert name in shown
        else:
            assert float(shown[name]) == default


def test_releases_that_are_tested():
    def pinned(lane):
        return dict(line.split("==") for line in lane.read_text().splitlines() if "==" in line)

    newest, lowest, oldest = (
        pinned(ROOT / f"constraints{lane}.txt") for lane in ("", "-lowest", "-oldest-torch")
    )
    said = "torch {} with trl {} and {}, transformers {} and {}, lightning {} and {}"
    pairs = [f(n) for n in ("trl", "transformers", "lightning") for f in (newest.get, lowest.get)]
    assert newest["torch"] == lowest["torch"]
    assert said.format(newest["torch"], *pairs) in README
    assert f"torch {oldest['torch']} with NumPy {oldest['numpy']}" in README
    claims = (ROOT / "pyproject.toml").read_text()
    python = re.search(r'requires-python = ">=(.*)"', claims)[1]
    assert f"CI runs Python {python} and torch" in README
    said = f"Python {python} and later, torch {{}} and NumPy {{}} and later, "
    oldest_claimed = [oldest[name].removesuffix(".0") for name in ("torch", "numpy")]
    assert said.format(*oldest_claimed) in README
    for name in ("trl", "transformers"):
        least, above = re.search(rf'"{name}>=([\d.]+),<(\d)"', claims).groups()
        assert f"{name} {least} to {int(above) - 1}, " in README
    least = re.search(r'"lightning>=([\d.]+)"', claims)[1]
    assert f"lightning {least} and later" in README
    for name, release in (("torch", oldest["torch"]), ("numpy", oldest["numpy"])):
        assert f'"{name}>={release.removesuffix(".0")}"' in claims
    for name in ("trl", "transformers", "lightning"):
        assert f'"{name}>={lowest[name].removesuffix(".0")}' in claims


ELSEWHERE = {  # where else figures of a document are compared
    "examples/README.md": "test_the_examples_table_is_what_the_plain_loop_printed",
    "docs/how-it-works.md": "tests/test_bandit.py",
    "docs/field.md": "tests/documents/test_field_page.py",
}


def test_a_probe_s_verdicts():
    found = figures("preflight.json")
    runs = {
        (task, early): of(found["runs"], task=task, early_stop=early)
        for task in ("conflict", "healthy", "hard only")
        for early in (False, True)
    }
    words = ("would lower pass@1", "gradient nil", "would not lower pass@1")
    for task, said in zip(("conflict", "healthy", "hard only"), words, strict=True):
        assert {run["verdict"] for run in runs[task, False]} == {said}
        assert len(runs[task, False]) == 20
        assert {run["verdict"] for run in runs[task, True]} <= {said, "not sure"}
    low = max(run["z"] for run in runs["conflict", False])
    needed = first_threshold(chance_of_look(0.05, 1, 1, 1), 512)
    assert f"the least sure z was {low:.1f}, where {needed:.1f} is needed" in CHECKPOINTS
    high = sorted(run["z"] for run in runs["hard only", False])
    assert f"agree (z from {high[0]:+.1f} to {high[-1]:+.1f})" in CHECKPOINTS
    stopped = of(runs["conflict", True], verdict="would lower pass@1")
    prompts = mean(run["prompts"] for run in runs["conflict", True])
    said = f"made {len(stopped)} of 20 sure, after {prompts:.0f} prompts on average"
    assert said in CHECKPOINTS
    assert len(of(runs["hard only", True], verdict="would not lower pass@1")) == 20
    prompts = mean(run["prompts"] for run in runs["hard only", True])
    assert f"all of them after {prompts:.0f}" in CHECKPOINTS
    assert f"fewer than {100 * _NIL:.0f} % of the prompts are solved at times" in CHECKPOINTS
    assert found["untrained"]["verdict"] == "no signal"
    assert f"in {found['untrained']['of_sampling']:.1f} times what" in CHECKPOINTS
    drop = of(LOOP, task="ambiguous", remedy="pass@8 alone")
    assert max(float(run["end1"]) - float(run["start1"]) for run in drop) < -0.1  # "ten points"


def test_tasks_that_nobody_built():
    """How many pass@8 runs fell by more than the tolerance, and where an alarm said so."""
    paths = [path for seed in (0, 1, 2) for path in sorted((RESULTS / "field").glob(f"*-{seed}-*"))]
    found = map(json.loads, map(Path.read_text, paths))
    runs = {(run["task"], run["seed"], run["arm"]): run for run in found}
    lost, alarms = {}, {}
    for key, run in runs.items():
        if key[2] != "start":
            start = runs[(*key[:2], "start")]
            lost[key] = 100 / 64 * (mean(start["counts"]) - mean(run["counts"]["100"]))
            alarms[key] = next((look["step"] for look in run["looks"] if look["alarm"]), None)
    watched = [key for key in lost if key[2] == "watched"]
    assert len({name for name, *_ in watched}) == 6  # "six tasks"
    fell = [key for key in watched if lost[key] > 100 * PassKGuardConfig().pass1_tolerance]
    seen = [alarms[key] for key in fell if alarms[key] is not None]
    assert (
        f"took more than a point of pass@1 from {len(fell)} of {len(watched)} runs, "
        f"{max(lost.values()):.1f} at most"
    ) in README
    assert (
        f"an alarm in {len(seen)} of those, at steps {min(seen)} to {max(seen)}, and missed "
        f"{len(fell) - len(seen)}"
    ) in README
    loud = {key for key, step in alarms.items() if step is not None and key[2] != "guarded"}
    assert len(loud - set(fell)) == 1  # "another was of a loss that came back"
    assert not [key for key in loud if key[2] == "grpo"]
    plain = sorted(lost[key] for key in lost if key[2] == "grpo")
    down = [f"{points:.1f}" for points in plain if points > 1]
    assert f"{len(down)} of {len(plain)} runs lost {' and '.join(down)} points" in README
    errors = [100 * runs[key]["looks"][-1]["change_se"] for key in watched]
    assert f"error grows to {max(errors):.1f} points" in README


def test_how_often_a_probe_is_sure_of_a_wrong_sign():
    found = figures("sign_calibration.json")
    nulls = [one for name, one in found.items() if "opposed" not in name]
    assert len(nulls) == 17
    low, high, plain = (
        100 * max(one[key] for one in nulls)
        for key in ("lowers, one look", "raises, one look", "control, three looks")
    )
    allowed = 100 * chance_of_look(0.05, 1, 1, 1)
    assert (
        f'sure of "would lower" in {low:.1f} % of the probes at worst, and of "would not" in '
        f"{high:.1f} %, where {allowed:.0f} % are allowed"
    ) in CHECKPOINTS
    assert f"looked at three times, in up to {plain:.0f} %" in CHECKPOINTS
    assert max(one["lowers, three looks"] for one in nulls) < 0.04
    assert "may be wrong in 5 % of the cases" in CHECKPOINTS
    assert signature(probe_policy).parameters["chance"].default == 0.05


RELATED = {
    "every prompt a little": "every prompt a little harder",
    "some prompts wholly": "some prompts wholly lost",
    "a fifth turned over": "a fifth of the prompts turned over",
    "unrelated": "unrelated",
}


@pytest.mark.parametrize("related", RELATED)
def test_how_often_a_change_is_seen(related):
    found = figures("compare_power.json")
    cells = [found[f"{related}, 500 prompts, n=8, {points} points"] for points in (0, 1, 2, 5)]
    row = " | ".join(f"{share(cell['paired'], 2)} / {share(cell['unpaired'], 2)}" for cell in cells)
    assert f"| {RELATED[related]} | {row} |" in CHECKPOINTS


def test_coverage_of_the_intervals_of_a_comparison():
    found = figures("compare_coverage.json")
    columns = found.pop("columns")
    cells = {name: dict(zip(columns, values, strict=True)) for name, values in found.items()}
    rare = [name for name in cells if name.startswith("2 % lost, else small noise, 50 prompts")]
    change = {name: cell["change"] for name, cell in cells.items() if name not in rare}
    many = [c["change"] for n, c in cells.items() if c["20 make the spread"] >= 0.95]
    plain = [cell["plain"] for cell in cells.values()]
    assert f"Over {len(cells)} combinations of population" in CHECKPOINTS
    assert (
        f"the 95 % interval of the change holds the truth in {100 * min(change.values()):.1f} % of "
        f"the draws at least, in {100 * max(many):.1f} % at most where 20 prompts or more make the "
        "spread"
    ) in CHECKPOINTS
    low = sum(value < 0.93 for value in plain)
    assert (
        f"mean ± 1.96 standard errors, falls below 93 % in {low} of them, and down to nothing"
    ) in CHECKPOINTS
    assert min(plain) == 0
    worst = 100 * min(cells[name]["change"] for name in rare)
    assert "where 2 % of the prompts are lost wholly" in CHECKPOINTS
    assert f"need not hold one of them ({worst:.1f} % at worst)" in CHECKPOINTS


def test_coverage_on_common_rollouts():
    cells = figures("common_coverage.json")
    least = 100 * min(cell["inside"] for cell in cells.values())
    assert f"over {len(cells)} combinations of population and size" in CHECKPOINTS
    assert f"it held the truth in {least:.1f} % of the draws at least" in CHECKPOINTS
    plain = 100 * min(cell["plain"] for cell in cells.values())
    assert f"invisible, in {plain:.1f} % at worst" in CHECKPOINTS


def test_prompts_that_were_lost():
    found = figures("compare_power.json")
    named = {name: cell for name, cell in found.items() if "candidates: wrong" in cell}
    worst = 100 * max(cell["candidates: wrong"] for cell in named.values())
    control = 100 * max(cell.get("not conditional: wrong", 0) for cell in named.values())
    assert f"named 5 % at most are wrong on average: in simulation {worst:.1f} %" in CHECKPOINTS
    assert f"which {control:.1f} % would be without the correction" in CHECKPOINTS
    ours, plain = (
        named["most at 0 or 1, n=16"][f"{rule}: found"] for rule in ("candidates", "all prompts")
    )
    said = f"it finds {100 * ours:.0f} % of the lost ones; a rule that pays for all prompts finds"
    assert f"{said} {100 * plain:.0f} %" in CHECKPOINTS


def test_rounding_makes_no_gain_out_of_nothing():
    rounded, whole = (figures("half_precision.json")[dtype] for dtype in ("bfloat16", "float32"))
    said = "the drift would say {:+.1f} ± {:.1f} points, where it says {:+.1f} ± {:.1f}"
    names = ("as_scored", "as_scored_se", "told", "told_se")
    assert said.format(*(rounded[name] for name in names)) in ALARM
    assert rounded["as_scored"] > 5 * rounded["as_scored_se"]
    assert f"effective sample size of its ratios below {share(_SAME, 1)}" in ALARM
    for told in (rounded, whole):
        assert abs(told["told"]) < 3 * told["told_se"]


def test_no_figure_is_left_out():
    """Every decimal and every per cent in prose and tables lies in a sentence that a test finds."""
    call_all(globals(), but="test_no_figure_is_left_out")
    for name in DOCUMENTS:
        if name not in ELSEWHERE:
            assert figures_left_out(COMPARED.get(name) or words(name)) == [], name


def test_a_figure_that_nothing_compares_would_be_seen():
    document = Words("It lost .643 in 12 % of runs, then 1.3 points (`0.5`).")
    assert len(figures_left_out(document)) == 3
    assert "lost .643 in" in document
    assert "lost .644 in" not in document
    assert len(figures_left_out(document)) == 2


PLACES = [
    "README.md",
    "CONTRIBUTING.md",
    "docs",
    "examples",
    "integrations",
    "passk_guard",
    "tests",
]


@pytest.mark.parametrize("place", PLACES)
def test_files_that_are_named_exist(place):
    folder = ROOT / place
    paths = [folder] if folder.is_file() else sorted(folder.rglob("*.*"))
    known = {path.name for place in PLACES for path in (ROOT / place).rglob("*.py")}
    for path in paths:
        if path.suffix in (".md", ".py", ".rst") and path != Path(__file__):
            named = set(re.findall(r"``?(?:[\w.]+/)*(\w+\.py)``?", path.read_text()))
            assert named <= known, path
