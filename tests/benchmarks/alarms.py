"""When does the alarm come, and does it keep quiet where it should? One table over real runs.

    python tests/benchmarks/alarms.py

Runs of a plain torch loop with ``PassKObjective`` and the guard's defaults (``every=10``). The
truth is enumerated, not sampled. Every rule of ``rules.py`` is replayed on the probes of each run,
so that all see the same rollouts; ``today`` is read off the run. Each alarm is told with the points
of pass@1 truly lost by then and its cause. Finished runs are kept in
``results/alarms.csv`` and not repeated: delete its rows to run them again. A run takes half a
minute and more on one core.

* ``conflict``, at three learning rates: pass@8 training on ambiguous arithmetic; pass@1 falls.
  A seed's first look is the same at all of them. ``conflict, Adam``: the same with
  ``metric="adam"``, which there is none of at step 0, so that look is the same, too.
* ``healthy``: pass@8 training where every row wants the sum. ``fast healthy`` and ``too fast``: at
  10 and 30 times the learning rate, where pass@1 falls although the update does not oppose it, and
  on prompts that were always solved: their stored rollouts show no change. It is seen late or not.
* ``pass@1``: pass@1 training on the conflict task; pass@1 rises, although a pass@8 step would lower
  it. ``plateau``: the same after it has converged, pass@1 wanders around a flat mean.

Beside the guard a plain evaluation: the same prompts, as many rollouts in all and a few more, three
of each at every look, the change being the mean of paired differences, with the same chance of a
false alarm. Errors are rms ones on these very prompts, over all looks after the first.

Of the guard nothing was chosen on seeds 20 to 24.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: tiny models, busy machines
sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
warnings.simplefilter("ignore")

import ambiguous_arithmetic as task
import numpy as np
import torch
from arithmetic_loop import ArithmeticPolicy, train, warmed_up
from rules import PLAIN, RULES, PlainLook, plain_alarms, plain_change

from passk_guard import HeldOutPool, PassKGuard, PassKGuardConfig, PassKObjective

K, POINT = 8, 0.01
_PLAIN = 3  # rollouts of each prompt, at every look of a plain evaluation
_CONFLICT = {"products": 0.3, "seeds": range(20, 25)}
_HEALTHY = {"products": 0.0}
_PASS1 = {"products": 0.3, "pass1_weight": 1.0}
RUNS: dict[str, dict[str, Any]] = {
    "conflict 5e-6": {**_CONFLICT, "lr": 5e-6, "steps": 200},
    "conflict 1e-5": {**_CONFLICT, "lr": 1e-5, "steps": 120},
    "conflict 3e-5": {**_CONFLICT, "lr": 3e-5, "steps": 50},
    "conflict, Adam": {
        **_CONFLICT,
        "lr": 1e-5,
        "steps": 120,
        "metric": "adam",
        "seeds": range(20, 22),
    },
    "healthy": {**_HEALTHY, "lr": 1e-5, "steps": 200, "seeds": range(20, 25)},
    "fast healthy": {**_HEALTHY, "lr": 1e-4, "steps": 200, "seeds": range(20, 23)},
    "too fast": {**_HEALTHY, "lr": 3e-4, "steps": 100, "seeds": range(20, 23)},
    "pass@1": {**_PASS1, "lr": 1e-5, "steps": 200, "seeds": range(20, 25)},
    "plateau": {
        **_PASS1,
        "lr": 3e-5,
        "steps": 600,
        "every": 5,
        "settle": 400,
        "seeds": range(20, 22),
    },
}
QUIET = ["healthy", "fast healthy", "pass@1", "plateau"]
RESULTS = Path(__file__).parent / "results" / "alarms.csv"
FIELDS = (
    "run seed rule start end lowest start8 end8 looks alarms negative8 mean_z "
    "error plain_error rms_z pool_z".split()
)


class Run:
    """One run under the guard, which only warns."""

    def __init__(self, name: str, seed: int, cache: Path) -> None:
        self.setting = setting = RUNS[name]
        self.seed, self.truth = seed, dict[int, tuple[float, float]]()
        self.policy = ArithmeticPolicy(*warmed_up(seed, cache))
        self.objective = PassKObjective(K)
        self.objective.pass1_weight = setting.get("pass1_weight", 0.0)
        if setting.get("settle"):
            self._train(setting["settle"], 1e-4, 100 + seed, lambda step: None)
        self.every = setting.get("every", 10)
        config = PassKGuardConfig(
            k=K,
            every=self.every,
            seed=seed,
            metric=setting.get("metric", "euclidean"),
        )
        rows = task.make_rows(1024, products=setting["products"], seed=10_000 + seed)
        self.in_pool, self.pool = dict[int, np.ndarray](), self.policy.encode(rows)
        self.rows_of, self.plain, self.own_se = rows, list[PlainLook](), list[float]()
        self.guard = PassKGuard(
            self.policy,
            HeldOutPool(list(rows), seed),
            config,
            isolation=self.policy.isolated,
            objective=self.objective,
            optimizer=lambda: self.optimizer,
            is_main=False,
        )
        self._train(setting["steps"], setting["lr"], seed, self._look)

    def _train(self, steps: int, lr: float, seed: int, before_step: Any) -> None:
        train(
            self.policy,
            self.objective,
            products=self.setting["products"],
            steps=steps,
            lr=lr,
            seed=seed,
            before_step=before_step,
            hand_out=lambda optimizer: setattr(self, "optimizer", optimizer),
        )

    def _look(self, step: int) -> None:
        if step % self.every == 0:
            model, tokenizer = self.policy.model, self.policy.tokenizer
            products = self.setting["products"]
            self.truth[step] = task.exact_pass_at_1(model, tokenizer, products=products)
            self.in_pool[step] = self._pool_pass_at_1()
            ids = self.guard.probe(step).row_ids
            self.own_se.append(self.guard._prober.levels._tracks[None].now().change_se)
            with self.policy.isolated(10**6 + 1000 * self.seed + step):
                groups = self.policy.generate([self.rows_of[i] for i in ids], ids, _PLAIN)
            self.plain.append(PlainLook(step, np.array([g.correct for g in groups]), _PLAIN))

    @torch.no_grad()
    def _pool_pass_at_1(self) -> np.ndarray:
        ids, answers = torch.cat(self.pool, 1), self.pool[1]
        scores = self.policy.model(input_ids=ids).logits[:, -3:-1].log_softmax(-1)
        return scores.gather(-1, answers[..., None]).sum((1, 2)).exp().numpy()

    def rows(self) -> list[dict[str, Any]]:
        history = self.guard.history
        assert len(history) == len(self.truth), self.guard.failures
        ones, eights = zip(*self.truth.values(), strict=True)
        ids, start = list(history[0].row_ids), self.in_pool[0]
        moved = [self.in_pool[p.step] - start for p in history[1:]]
        off = np.array(
            [p.track.change - d[ids].mean() for p, d in zip(history[1:], moved, strict=True)]
        )
        off_pool = np.array(
            [p.track.change - d.mean() for p, d in zip(history[1:], moved, strict=True)]
        )
        plain = [plain_change(self.plain[0], look)[0] for look in self.plain[1:]]
        off_plain = np.array(plain) - [d[ids].mean() for d in moved]
        said = np.array(self.own_se[1:]), np.array([p.track.change_se for p in history[1:]])
        measured = [p.alignment.inner for p in history if p.alignment]
        updates = [p.update_alignment for p in history if p.update_alignment]
        z = [found.inner / found.jackknife_se for found in updates if found.jackknife_se > 0]
        shared = {
            **{"seed": self.seed, "start": f"{ones[0]:.4f}", "end": f"{ones[-1]:.4f}"},
            **{"lowest": f"{min(ones):.4f}", "start8": f"{eights[0]:.4f}"},
            **{"end8": f"{eights[-1]:.4f}", "looks": len(history)},
            "negative8": f"{np.mean(np.array(measured) < 0):.2f}",
            "mean_z": f"{np.mean(z):.2f}" if z else "",
            "error": f"{100 * _rms(off):.3f}",
            "plain_error": f"{100 * _rms(off_plain):.3f}",
            "rms_z": f"{_rms(off / said[0]):.2f}",
            "pool_z": f"{_rms(off_pool / said[1]):.2f}",
        }
        rows = []
        found = {rule: alarms_of(history) for rule, alarms_of in RULES.items()}
        found[PLAIN] = plain_alarms(self.plain, len(self.rows_of))
        for rule, alarms in found.items():
            told = (f"{s}:{ones[0] - self.truth[s][0]:+.4f}:{cause}" for s, cause in alarms)
            rows.append({"rule": rule, **shared, "alarms": " ".join(told)})
        return rows


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def told(row: dict[str, str]) -> list[tuple[int, float, str]]:
    """Step, pass@1 lost by then, and cause of each alarm."""
    parts = (alarm.split(":") for alarm in row["alarms"].split())
    return [(int(step), float(lost), cause) for step, lost, cause in parts]


def print_tables(rows: list[dict[str, str]]) -> None:
    by_run = {name: [r for r in rows if r["run"] == name] for name in RUNS}
    print(
        "| run | seeds | pass@1 (lowest) | pass@8 | looks | pass@8 opposes | z "
        "| error, points | plain | rms z | of the pool |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name in RUNS:
        mine = [row for row in by_run[name] if row["rule"] == "today"]
        if mine:
            start, end, lowest, start8, end8, negative, z = (
                float(np.nanmean([float(row[field] or "nan") for row in mine]))
                for field in ("start", "end", "lowest", "start8", "end8", "negative8", "mean_z")
            )
            error, plain, own_z, pool_z = (
                math.sqrt(np.mean([float(row[name]) ** 2 for row in mine]))
                for name in ("error", "plain_error", "rms_z", "pool_z")
            )
            print(
                f"| {name} | {len(mine)} | {start:.3f} → {end:.3f} ({lowest:.3f}) "
                f"| {start8:.3f} → {end8:.3f} | {sum(int(row['looks']) for row in mine)} "
                f"| {negative:.0%} | {z:+.1f} | {error:.2f} | {plain:.2f} | {own_z:.2f} "
                f"| {pool_z:.2f} |".replace("+nan", "–").replace("nan", "–")
            )
    print("\n'pass@8 opposes': looks at which the pass@8 gradient opposes pass@1; 'z': mean one of")
    print(
        "the update's inner product, where there is a signal; 'error': of the change of pass@1 on"
    )
    print("these prompts, and a plain evaluation's; 'rms z': in units of what is stated, on these")
    print("prompts and in the pool.")
    loud = [name for name in RUNS if name not in QUIET and by_run[name]]
    print("\nFirst alarm where pass@1 falls: mean step, points of pass@1 lost by then (worst):\n")
    print(f"| rule | {' | '.join(loud)} |\n|---{'|---' * len(loud)}|")
    for rule in [*RULES, PLAIN]:
        cells = (_first([r for r in by_run[name] if r["rule"] == rule]) for name in loud)
        print(f"| {rule} | {' | '.join(cells)} |")
    quiet = [name for name in QUIET if by_run[name]]
    print("\nElsewhere: alarms, and in brackets those while less than a point was lost:\n")
    print(f"| rule | {' | '.join(quiet)} | in all |\n|---{'|---' * len(quiet)}|---|")
    for rule in [*RULES, PLAIN]:
        mine = [[r for r in by_run[name] if r["rule"] == rule] for name in quiet]
        cells = (_count(group) for group in [*mine, [row for group in mine for row in group]])
        print(f"| {rule} | {' | '.join(cells)} |")
    print("\nThose of today's rule, and of the plain evaluation:\n")
    for row in rows:
        if row["run"] in [*QUIET, "too fast"] and row["rule"] in ("today", PLAIN):
            for step, lost, cause in told(row):
                where = f"{row['run']}, seed {row['seed']}, step {step}"
                print(f"* {row['rule']}: {where}: {100 * lost:+.1f} lost, {cause or 'no cause'}")


def _first(rows: list[dict[str, str]]) -> str:
    first = [alarms[0] for row in rows if (alarms := told(row))]
    if not first:
        return f"none of {len(rows)}"
    step, lost = (sum(alarm[i] for alarm in first) / len(first) for i in (0, 1))
    number = "" if len(first) == len(rows) else f"{len(first)} of {len(rows)}: "
    worst = max(alarm[1] for alarm in first)
    return f"{number}{step:.0f}, {100 * lost:.1f} ({100 * worst:.1f})"


def _count(rows: list[dict[str, str]]) -> str:
    alarms = [alarm for row in rows for alarm in told(row)]
    early = sum(lost < POINT for _, lost, _ in alarms)
    return f"{len(alarms)} ({early}) in {sum(int(row['looks']) for row in rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, help="by default each run's own")
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--out", type=Path, default=Path("runs/alarms"))
    options = parser.parse_args()
    rows = list(csv.DictReader(RESULTS.open())) if RESULTS.exists() else []
    done = {(row["run"], int(row["seed"])) for row in rows}
    for name in options.only:
        for seed in options.seeds or RUNS[name]["seeds"]:
            if (name, seed) in done:
                continue
            new = [{"run": name, **row} for row in Run(name, seed, options.out).rows()]
            fresh = not RESULTS.exists()
            with RESULTS.open("a", newline="") as file:
                writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
                if fresh:
                    writer.writeheader()
                writer.writerows(new)
            rows += [{key: str(value) for key, value in row.items()} for row in new]
            print(" ".join(f"{key}={value}" for key, value in new[0].items()), flush=True)
    print_tables(rows)


if __name__ == "__main__":
    main()
