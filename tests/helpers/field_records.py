"""Records of the field study, and what sentences about them need.

Who imports this has ``tests/benchmarks`` on the path.
"""

import json

import numpy as np
from field.sizes import FULL
from field.table import first_alarm
from quoted import RESULTS

RECORDS = [json.loads(path.read_text()) for path in sorted((RESULTS / "field").glob("*.json"))]
SEEDS = (0, 1, 2)
RUNS = [(name, seed) for name in FULL.tasks for seed in SEEDS]
UP_TO_TWELVE = "none one two three four five six seven eight nine ten eleven twelve"
NUMBERS = [
    *UP_TO_TWELVE.split(),
    *(f"{ten}teen" for ten in ("thir", "four", "fif", "six", "seven", "eigh")),
]


def several(values, form):
    """As a sentence has them: ``"1.0, 2.0 and 3.0"``."""
    *first, last = (format(value, form) for value in values)
    return f"{', '.join(first)} and {last}"


def record(name, arm, seed=0):
    (found,) = [r for r in RECORDS if (r["task"], r["arm"], r["seed"]) == (name, arm, seed)]
    return found


def by_problem(name, arm, seed=0, step=100):
    """Change of each test problem's success rate, in points, and the start's record."""
    start, n = record(name, "start", seed), FULL.many if step == FULL.steps else FULL.few
    then = np.array(record(name, arm, seed)["counts"][str(step)]) / n
    return 100 * (then - np.array(start["counts"]) / FULL.many), start


def change(name, arm, seed=0, step=100):
    return by_problem(name, arm, seed, step)[0].mean()


def at_level(name, arm, level, seed=0):
    change, start = by_problem(name, arm, seed)
    return change[np.array(start["levels"]) == level].mean()


def look(name, arm, seed, step):
    (found,) = [one for one in record(name, arm, seed)["looks"] if one["step"] == step]
    return found


def said(name, arm, seed, step, sign=1):
    """What the guard said of the change."""
    found = look(name, arm, seed, step)
    return f"{100 * sign * found['change']:.1f} ± {100 * found['change_se']:.1f}"


def alarm(name, arm, seed):
    return first_alarm(record(name, arm, seed))


def mean_of(shares):
    """Of shares, with its error over runs, in points."""
    points = 100 * np.array(shares)
    return f"{points.mean():+.1f} ± {points.std(ddof=1) / len(points) ** 0.5:.1f}"
