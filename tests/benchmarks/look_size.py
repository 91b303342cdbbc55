"""At equal cost: many small looks or few large ones? And what would a plain evaluation need?

    python tests/benchmarks/look_size.py    # a minute a run on one core; runs are kept

Conflict runs of ``alarms.py``: step and points lost at the first alarm after step 0, at the level
alarm, at that of a plain evaluation with as many rollouts; rms errors. What is stated at step 50
also tells how many rollouts make a loss known (``tables.py``); of fresh prompts it is p (1 - p).
"""

import json
from functools import partial
from itertools import product
from pathlib import Path

import alarms
import bench
import numpy as np
from rules import PLAIN, plain_change
from tables import told

RESULTS = bench.RESULTS / "look_size.json"
SIZES = {10: 1024, 5: 512, 20: 2048}  # rollouts of a look, by steps between two
CONFIG, AT = alarms.PassKGuardConfig, 50


def one(name, every, seed):
    alarms.RUNS[name]["every"], later = every, alarms.RUNS[name]["steps"] // every
    alarms.PassKGuardConfig = partial(CONFIG, rollouts_per_look=SIZES[every])
    n = alarms._PLAIN = -int(-(12 + later * SIZES[every] / 512) // (later + 1))
    run = alarms.Run(name, seed, Path("runs/alarms"))
    rows, history = {row["rule"]: row for row in run.rows()}, run.guard.history
    start, at = run.truth[0][0], AT // every
    levels = {
        "first": [p.step for p in history if p.alarm and p.step],
        "level": [p.step for p in history if p.alarm and "level" in p.alarm.fired],
        "plain": [step for step, *_ in told(rows[PLAIN])],
    }
    found = {what: [s[0], 100 * (start - run.truth[s[0]][0])] for what, s in levels.items() if s}
    found |= {key: float(rows["today"][key]) for key in ("error", "plain_error", "rms_z")}
    if AT in run.truth:  # rollouts, variance on these prompts, and what the pool's adds to it
        plain = (plain_change(run.plain[0], run.plain[at], pool)[1] for pool in (None, 1024))
        stated = run.own_se[at], history[at].track.change_se
        paired = sum(p.rollouts for p in history[: at + 1]), *stated
        parts = {"paired": paired, "beside": ((at + 1) * 512 * n, *plain)}
        found |= {what: [of, a**2, b**2 - a**2] for what, (of, a, b) in parts.items()}
        found["fresh"] = [at + 1, sum(v * (1 - v) for v in (start, run.truth[AT][0])), 0.0]
    return {"run": name, "every": every, "seed": seed, **found}


def row(runs):
    cells, errors = [f"{len(runs)} runs"], np.array([[r["error"], r["plain_error"]] for r in runs])
    for what in ("first", "level", "plain"):
        there = [r[what] for r in runs if what in r] or [[np.nan, np.nan]]
        cells.append("{:.0f}, {:.1f} ({})".format(*np.mean(there, 0), len(there)))
    return " | ".join([*cells, str(np.sqrt((errors**2).mean(0)).round(2))])


def main():
    runs = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    keys = list(product(("conflict 1e-5", "conflict 3e-5"), SIZES))
    for seed, key in product((20, 21, 22), keys):
        if (*key, seed) not in [(r["run"], r["every"], r["seed"]) for r in runs]:
            runs.append(one(*key, seed))
            RESULTS.write_text("[\n" + ",\n".join(map(json.dumps, runs)) + "\n]\n")
    for key in keys:
        print(f"| {key} |", row([r for r in runs if (r["run"], r["every"]) == key]), "|")


if __name__ == "__main__":
    main()
