"""Results of the benchmarks, and the tables in documents that are made from them.

    python tests/helpers/tables.py

writes the tables into the documents anew, each in the place of the table with the same head.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

from places import ROOT

from passk_guard import PassKGuardConfig
from passk_guard.detection.level import level_threshold

RESULTS = ROOT / "tests" / "benchmarks" / "results"
Row = Mapping[str, str]
EVIDENCE, PRODUCTION = "docs/evidence.md", "docs/production.md"


def table(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((RESULTS / name).read_text().splitlines()))


def figures(name: str) -> Any:
    return json.loads((RESULTS / name).read_text())


def share(value: Any, places: int = 3) -> str:
    """As documents write it: .643."""
    return f"{float(value):.{places}f}".replace("0.", ".", 1)


def words(document: str) -> str:
    """A document without its line breaks."""
    return " ".join((ROOT / document).read_text().split())


def markdown(head: str, rows: Iterable[Iterable[str]]) -> str:
    """A head such as ``"a | b"`` and rows of cells."""
    lines = [head, "|".join(["---"] * len(head.split(" | "))), *(" | ".join(row) for row in rows)]
    return "\n".join(f"|{line}|" if line.startswith("---") else f"| {line} |" for line in lines)


def points(value: float, form: str = "+.1f") -> str:
    """A share in points, without a sign where it is 0."""
    return "0" if round(100 * value, 1) == 0 else format(100 * value, form)


def of(runs: Iterable[Row], **wanted: str) -> list[Row]:
    return [run for run in runs if all(run[key] == value for key, value in wanted.items())]


def changes(runs: Iterable[Row], when: str) -> list[float]:
    return [float(run[when]) - float(run["start1"]) for run in runs]


# Alarms ------------------------------------------------------------------------------------------

ALARM_RULES = {
    "today": "**this guard**",
    "level alone": "its level alarm alone",
    "plain evaluation": "a plain paired evaluation",
}
ALARM_RUNS = {
    "conflict 5e-6": "5e-6",
    "conflict 1e-5": "1e-5",
    "conflict 3e-5": "3e-5",
    "healthy": "healthy",
    "fast healthy": "healthy, 1e-4",
    "too fast": "healthy, 3e-4",
    "pass@1": "pass@1 training",
}
QUIET = ("healthy", "fast healthy", "pass@1", "plateau")


def told(row: Row) -> list[tuple[int, float]]:
    """Step of each alarm, and the pass@1 lost by then."""
    parts = (alarm.split(":") for alarm in row["alarms"].split())
    return [(int(step), float(lost)) for step, lost, _ in parts]


def alarms() -> str:
    rows = table("alarms.csv")
    runs = [name for name in ALARM_RUNS if name.startswith("conflict ")]

    def first(rule: str, run: str) -> str:
        mine = of(rows, rule=rule, run=run)
        found = [alarms[0] for row in mine if (alarms := told(row))]
        if not found:
            return f"none of {len(mine)}" if mine else "–"
        step, lost = mean(s for s, _ in found), [max(p, 0.0) for _, p in found]
        number = "" if len(found) == len(mine) else f"{len(found)} of {len(mine)}: "
        return f"{number}{step:.0f}: {100 * mean(lost):.1f} ({100 * max(lost):.1f})"

    def elsewhere(rule: str) -> str:
        mine = [row for row in of(rows, rule=rule) if row["run"] in QUIET]
        raised = [lost for row in mine for _, lost in told(row)]
        looks = sum(int(row["looks"]) for row in mine)
        return f"{len(raised)} ({sum(lost < 0.01 for lost in raised)}) in {looks}"

    head = f"alarm | {' | '.join(ALARM_RUNS[run] for run in runs)} | elsewhere"
    cells = ([first(rule, run) for run in runs] for rule in ALARM_RULES)
    ends = map(elsewhere, ALARM_RULES)
    named = zip(ALARM_RULES.values(), cells, ends, strict=True)
    return markdown(head, ([name, *those, end] for name, those, end in named))


def errors() -> str:
    alarms, rows = table("alarms.csv"), []
    for run, name in ALARM_RUNS.items():
        mine = of(alarms, rule="today", run=run)
        if mine:
            cells = (
                mean(float(row[key]) ** 2 for row in mine) ** 0.5
                for key in ("error", "plain_error", "rms_z", "pool_z")
            )
            rows.append([name, str(len(mine)), *(f"{value:.2f}" for value in cells)])
    head = "run | seeds | the guard | a plain evaluation | over what is stated | in the pool"
    return markdown(head, rows)


POWER = {
    "paired": "**this guard**",
    "beside": "a plain evaluation of the same prompts",
    "fresh": "fresh prompts at every look",
}


def power() -> str:
    """All variances but that between prompts go with 1 / rollouts: what is stated five looks after
    the start tells how many it takes.
    """
    runs = [run for run in figures("look_size.json") if run["every"] == 10]
    z = level_threshold(PassKGuardConfig().false_alarms / 2)

    def needed(what: str, run: str, loss: float) -> str:
        most = ((loss - PassKGuardConfig().pass1_tolerance) / z) ** 2
        found = [r[what][0] * r[what][1] / most for r in runs if r["run"] == run]
        return f"{round(median(found), -2):,.0f}"

    rows = (
        [name, *(needed(what, "conflict 1e-5", loss) for loss in (0.02, 0.03, 0.05))]
        for what, name in POWER.items()
    )
    return markdown("rollouts that make a loss known | 2 points | 3 points | 5 points", rows)


def calibration() -> str:
    levels, fused = figures("calibration.json"), figures("fused_calibration.json")
    rows = []
    for at, (nominal, chance) in enumerate((("0.01", "1 %"), ("0.001", "0.1 %"))):
        ours = [found for name, found in fused.items() if name.endswith(f"at {nominal}")]
        rates = [rate for found in ours for rate in (*found["fused"], *found["by turns"])]
        rows.append([f"the alignment alarm at {chance} a look", "1", _least_and_most(rates, 1)])
        rates = [f["rates"][at] for name, f in levels.items() if name.startswith("level,")]
        rows.append([f"the level alarm at {chance} a look", "1", _least_and_most(rates, 1)])
    for key, name in (("inner", "inner product"), ("change", "change")):
        covers = [100 * one[key] for what, one in levels.items() if what.startswith("coverage")]
        held = _least_and_most(covers, 0) + " %"
        rows.append([f"interval of the {name} holds the truth", "95 %", held])
    return markdown("what | nominal | found", rows)


def _least_and_most(values: Iterable[float], digits: int) -> str:
    found = list(values)
    return f"{min(found):.{digits}f} to {max(found):.{digits}f}"


# What remedies kept ------------------------------------------------------------------------------

REMEDIES = {
    "pass@8 alone": "pass@8 alone",
    "pass@1 alone": "pass@1 alone",
    "static mix 0.5": "static mix, λ = 0.5",
    "static mix 0.6": "static mix, λ = 0.6",
    "static mix 0.7": "static mix, λ = 0.7",
    "k annealed": "k annealed from 8 to 1",
    "accuracy-weighted mix": "accuracy-weighted mix (Chen et al. 2025)",
    "FADE": "FADE (Decugis et al. 2026)",
    "projection": "one-sided projection (A-GEM)",
    "memoryless": "memoryless λ*",
    "guard mix": '**guard, `"mix"`**',
    "guard adjust_k": 'guard, `"adjust_k"`',
}
OTHER_TASKS = {
    "healthy": "every row wants the sum",
    "hard only": "every row wants the product",
    "other shape": "3 layers of width 96, more products",
    "fast": "three times the learning rate",
    "too fast": "the first, thirty times the learning rate",
}


KEPT = "pass@1 (worst) | lowest (worst) | pass@8"


def _kept(runs: list[Row]) -> list[str]:
    both = (changes(runs, when) for when in ("end1", "lowest1"))
    eight = share(mean(float(run["end8"]) for run in runs))
    return [*(f"{points(mean(found))} ({points(min(found))})" for found in both), eight]


def closed_loop(names: Iterable[str] = REMEDIES, head: str = "training") -> str:
    loop = of(table("closed_loop.csv"), task="ambiguous")
    rows = ([REMEDIES[name], *_kept(of(loop, remedy=name))] for name in names)
    return markdown(f"{head} | {KEPT}", rows)


def other_tasks() -> str:
    rows = []
    for task, name in OTHER_TASKS.items():
        cells = [name]
        for remedy in ("pass@8 alone", "guard mix"):
            runs = of(table("closed_loop.csv"), task=task, remedy=remedy)
            end, low = (mean(changes(runs, when)) for when in ("end1", "lowest1"))
            cells += [
                f"{points(end)} ({points(low)})",
                share(mean(float(run["end8"]) for run in runs)),
            ]
        rows.append([*cells, f"{sum(run['alarm'] != '' for run in runs)} of {len(runs)}"])
    head = "task | pass@8 alone: pass@1 (lowest) | pass@8 | guarded: pass@1 (lowest) | pass@8"
    return markdown(f"{head} | with an alarm", rows)


HOSTS = {"trl": "TRL", "trainer": "`Trainer`", "lightning": "Lightning"}


def in_trainers() -> str:
    runs = table("closed_loop_trainers.csv")
    rows = []
    for action, name in (("mix", '`"mix"`'), ("anchors", "anchor prompts")):
        rows += [
            [f"{HOSTS[host]}, {name}", str(len(mine)), *_kept(mine)]
            for host in HOSTS
            if (mine := of(runs, host=host, action=action))
        ]
    return markdown(f"trainer, remedy | seeds | {KEPT}", rows)


# The field study ---------------------------------------------------------------------------------


def _field() -> list[Mapping[str, Any]]:
    sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
    return [json.loads(path.read_text()) for path in sorted((RESULTS / "field").glob("*.json"))]


def field_study() -> str:
    records = _field()
    from field.outcomes import outcome
    from field.sizes import FULL, TASKS

    by_run = {(r["task"], r["seed"], r["arm"]): r for r in records}
    rows = []
    for task in TASKS:
        found = {
            arm: [
                outcome(by_run[task, seed, "start"], by_run[task, seed, arm], FULL)
                for seed in (0, 1, 2)
            ]
            for arm in ("watched", "guarded", "grpo")
        }
        each = [
            [points(o.change) for o in found["watched"]],
            [points(o.lowest) for o in found["watched"]],
            *([points(o.change) for o in found[arm]] for arm in ("guarded", "grpo")),
        ]
        rows.append([task, *map(", ".join, each)])
    head = "task | pass@8 | lowest | pass@8, guarded | GRPO"
    return markdown(head, rows)


def field_replay() -> str:
    _field()
    from field.replay import table

    return table(figures("field_replay.json"))


# What gradients and comparisons are worth --------------------------------------------------------

ENGINES = {
    "batched": "plain forward and backward, and scores",
    "hooked_sketch": "watched layers, sketched",
    "hooks": "watched layers, exact",
    "sketch": "a backward per prompt, sketched",
    "exact": "a backward per prompt, exact",
}


def gradient_cost() -> str:
    found = figures("probe_cost.json")
    rows = (
        [name, *(f"{found[length][way][what]:.2f}" for length, what in cells)]
        for way, name in ENGINES.items()
        for cells in [[("64 tokens", "scored"), ("64 tokens", "peak"), ("8 tokens", "scored")]]
    )
    return markdown("gradients and log-probs | time | peak memory | time, 8 tokens", rows)


RELATED = {
    "every prompt a little": "every prompt a little harder",
    "some prompts wholly": "some prompts wholly lost",
    "a fifth turned over": "a fifth of the prompts turned over",
    "unrelated": "unrelated",
}


def compare_power() -> str:
    found = figures("compare_power.json")
    rows = (
        [
            name,
            *(
                f"{share(cell['paired'], 2)} / {share(cell['unpaired'], 2)}"
                for lost in (0, 1, 2, 5)
                for cell in [found[f"{related}, 500 prompts, n=8, {lost} points"]]
            ),
        ]
        for related, name in RELATED.items()
    )
    return markdown(
        "how the two are related | nothing changed | 1 point | 2 points | 5 points", rows
    )


TABLES: list[tuple[str, Callable[[], str]]] = [
    (
        "README.md",
        partial(
            closed_loop, ("pass@8 alone", "pass@1 alone", "guard mix"), "pass@8 training, 300 steps"
        ),
    ),
    (EVIDENCE, alarms),
    (EVIDENCE, errors),
    (EVIDENCE, power),
    (EVIDENCE, calibration),
    (EVIDENCE, closed_loop),
    (EVIDENCE, other_tasks),
    (EVIDENCE, in_trainers),
    (PRODUCTION, gradient_cost),
    ("docs/checkpoints.md", compare_power),
]
FIELD = [(EVIDENCE, field_replay), (EVIDENCE, field_study)]


def write(document: str, made: str) -> None:
    """Put a table in the place of the one with the same head."""
    path = ROOT / document
    lines, new = path.read_text().splitlines(), made.splitlines()
    at = lines.index(new[0])
    end = next((i for i in range(at, len(lines)) if not lines[i].startswith("|")), len(lines))
    path.write_text("\n".join([*lines[:at], *new, *lines[end:]]) + "\n")


def main() -> None:
    for document, make in [*TABLES, *FIELD]:
        write(document, make())


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
