"""When does the alarm come, and does it keep quiet where it should? Real GRPO runs, one table.

    python tests/benchmarks/alarms.py

The truth is enumerated, not sampled. Every rule of ``rules.py`` is replayed on the probes of each
run, so that all see the same rollouts. Finished runs are kept in ``results/alarms.csv`` and not
repeated: delete its rows to run them again. A run takes a minute or two on one core.

* ``conflict``: pass@8 training on ambiguous arithmetic, the demo's; pass@1 falls.
* ``fast conflict``: the same at three times the learning rate.
* ``healthy``: pass@8 training where every row wants the sum.
* ``plain GRPO``: the trainer's own objective on the conflict task; pass@1 rises, although a pass@8
  step would lower it.
* ``plateau``: plain GRPO after it has converged: pass@1 wanders around a flat mean, 200 probes;
  several minutes, so only where ``--only`` names it.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
warnings.simplefilter("ignore")

import ambiguous_arithmetic as task
from rules import RULES
from transformers import TrainerCallback

from passk_guard.integrations.trl import PassKGuardCallback

_PASSK = {"objective": "pkpo", "scale": "none", "every": 10, "products": 0.3, "settle": 0}
_PLAIN = {**_PASSK, "objective": None, "scale": "group"}
RUNS: dict[str, dict[str, Any]] = {
    "conflict": {**_PASSK, "lr": 1e-5, "steps": 150},
    "fast conflict": {**_PASSK, "lr": 3e-5, "steps": 60},
    "healthy": {**_PASSK, "lr": 1e-5, "steps": 150, "products": 0.0},
    "plain GRPO": {**_PLAIN, "lr": 1e-5, "steps": 150},
    "plateau": {**_PLAIN, "lr": 3e-5, "steps": 1000, "every": 5, "settle": 400},
}
RESULTS = Path(__file__).parent / "results" / "alarms.csv"
FIELDS = "run seed rule start end lowest start8 end8 alarms first_alarm lost probes worst_error"


class Truth(TrainerCallback):
    """Enumerated pass@1 and pass@8 at every probe's step."""

    def __init__(self, tokenizer: Any, products: float, every: int) -> None:
        self.tokenizer, self.products, self.every, self.values = tokenizer, products, every, {}

    def _look(self, step, model):
        self.values[step] = task.exact_pass_at_1(model, self.tokenizer, products=self.products)

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self._look(0, model)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step % self.every == 0:
            self._look(state.global_step, model)


def one_run(name: str, seed: int, out: Path) -> list[dict[str, Any]]:
    run = RUNS[name]
    tokenizer = task.make_tokenizer()
    model = task.make_model(tokenizer, seed=seed)
    task.warm_up(model, tokenizer, seed=seed)

    def trainer(steps: int, lr: float, seed: int) -> Any:
        return task.make_trainer(
            model,
            tokenizer,
            steps=steps,
            learning_rate=lr,
            products=run["products"],
            out=str(out / "trainer"),
            seed=seed,
            scale_rewards=run["scale"],
            report_to="none",
            disable_tqdm=True,
            logging_steps=10_000,
        )

    if run["settle"]:
        trainer(run["settle"], 1e-4, 100 + seed).train()
    guarded = trainer(run["steps"], run["lr"], seed)
    held_out = task.make_rows(1024, products=run["products"], seed=10_000 + seed)
    truth = Truth(tokenizer, run["products"], run["every"])
    guarded.add_callback(truth)
    callback = PassKGuardCallback(
        guarded, prompts=held_out, k=8, objective=run["objective"], every=run["every"], seed=seed
    )
    guarded.add_callback(callback)
    guarded.train()
    history = callback.guard.history
    start, end = truth.values[0], truth.values[run["steps"]]
    errors = [
        abs(p.track.change - (truth.values[p.step][0] - start[0])) / p.track.change_se
        for p in history[1:]
    ]
    rows = []
    for rule, alarms_of in RULES.items():
        steps = alarms_of(history)
        lost = f"{start[0] - truth.values[steps[0]][0]:.4f}" if steps else ""
        rows.append(
            {
                **{"run": name, "seed": seed, "rule": rule},
                **{"start": f"{start[0]:.4f}", "end": f"{end[0]:.4f}"},
                "lowest": f"{min(v[0] for v in truth.values.values()):.4f}",
                **{"start8": f"{start[1]:.4f}", "end8": f"{end[1]:.4f}"},
                **{"alarms": len(steps), "first_alarm": steps[0] if steps else "", "lost": lost},
                **{"probes": len(history), "worst_error": f"{max(errors):.2f}"},
            }
        )
    return rows


def print_tables(rows: list[dict[str, Any]]) -> None:
    print(
        "| run | seeds | pass@1 (lowest) | pass@8 | probes | worst error of the change, in s.e. |"
    )
    print("|---|---|---|---|---|---|")
    for name in RUNS:
        mine = [row for row in rows if row["run"] == name and row["rule"] == "guard"]
        if mine:
            start, end, lowest, start8, end8 = (
                sum(float(row[field]) for row in mine) / len(mine)
                for field in ("start", "end", "lowest", "start8", "end8")
            )
            print(
                f"| {name} | {len(mine)} | {start:.3f} → {end:.3f} ({lowest:.3f}) "
                f"| {start8:.3f} → {end8:.3f} | {sum(int(row['probes']) for row in mine)} "
                f"| {max(float(row['worst_error']) for row in mine):.1f} |"
            )
    print("\nRuns with an alarm, and pass@1 lost at the first one, mean (worst); alarms in all:\n")
    print("| rule | " + " | ".join(RUNS) + " |\n|---" * 1 + "|---" * len(RUNS) + "|")
    for rule in RULES:
        print(f"| {rule} | " + " | ".join(_cell(rows, name, rule) for name in RUNS) + " |")


def _cell(rows: list[dict[str, Any]], name: str, rule: str) -> str:
    mine = [row for row in rows if row["run"] == name and row["rule"] == rule]
    lost = [float(row["lost"]) for row in mine if row["lost"]]
    if not lost:
        return f"0 of {len(mine)}" if mine else "–"
    alarms = sum(int(row["alarms"]) for row in mine)
    return f"{len(lost)} of {len(mine)}: {sum(lost) / len(lost):.3f} ({max(lost):.3f}); {alarms}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS)[:4])
    parser.add_argument("--out", type=Path, default=Path("runs/alarms"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = list(csv.DictReader(RESULTS.open())) if RESULTS.exists() else []
    done = {(row["run"], int(row["seed"])) for row in rows}
    for name in options.only:
        for seed in range(options.seeds):
            if (name, seed) in done:
                continue
            new = one_run(name, seed, options.out)
            fresh = not RESULTS.exists()
            with RESULTS.open("a", newline="") as file:
                writer = csv.DictWriter(file, FIELDS.split(), lineterminator="\n")
                if fresh:
                    writer.writeheader()
                writer.writerows(new)
            rows += [{key: str(value) for key, value in row.items()} for row in new]
            print(" ".join(f"{key}={value}" for key, value in new[0].items()), flush=True)
    print_tables(rows)


if __name__ == "__main__":
    main()
