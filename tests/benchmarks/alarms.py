"""When does the alarm come, and does it keep quiet where it should? Real GRPO runs, one table.

    python tests/benchmarks/alarms.py --seeds 5

Each run probes every 10 steps. The truth is enumerated, not sampled. Finished runs are kept in the
CSV and not repeated. About fifteen minutes on two cores for five seeds.

* ``conflict``: pass@8 training on ambiguous arithmetic, the demo's; pass@1 falls.
* ``fast conflict``: the same at three times the learning rate.
* ``healthy``: pass@8 training where every row wants the sum.
* ``plain GRPO``: the trainer's own objective on the conflict task; pass@1 rises, although a pass@8
  step would lower it.
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
from transformers import TrainerCallback

from passk_guard.integrations.trl import PassKGuardCallback

RUNS: dict[str, dict[str, Any]] = {
    "conflict": {"lr": 1e-5, "steps": 150, "products": 0.3, "objective": "pkpo", "scale": "none"},
    "fast conflict": {
        "lr": 3e-5,
        "steps": 60,
        "products": 0.3,
        "objective": "pkpo",
        "scale": "none",
    },
    "healthy": {"lr": 1e-5, "steps": 150, "products": 0.0, "objective": "pkpo", "scale": "none"},
    "plain GRPO": {"lr": 1e-5, "steps": 150, "products": 0.3, "objective": None, "scale": "group"},
}
FIELDS = "run seed start end start8 end8 alarm_step fired lost_at_alarm probes worst_error".split()


class Truth(TrainerCallback):
    """Enumerated pass@1 and pass@8 at every probe's step."""

    def __init__(self, tokenizer: Any, products: float) -> None:
        self.tokenizer, self.products, self.values = tokenizer, products, {}

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.values[0] = task.exact_pass_at_1(model, self.tokenizer, products=self.products)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step % 10 == 0:
            found = task.exact_pass_at_1(model, self.tokenizer, products=self.products)
            self.values[state.global_step] = found


def one_run(name: str, seed: int, out: Path) -> dict[str, Any]:
    run = RUNS[name]
    tokenizer = task.make_tokenizer()
    model = task.make_model(tokenizer, seed=seed)
    task.warm_up(model, tokenizer, seed=seed)
    trainer = task.make_trainer(
        model,
        tokenizer,
        steps=run["steps"],
        learning_rate=run["lr"],
        products=run["products"],
        out=str(out / "trainer"),
        seed=seed,
        scale_rewards=run["scale"],
        report_to="none",
        disable_tqdm=True,
        logging_steps=10_000,
    )
    held_out = task.make_rows(1024, products=run["products"], seed=10_000 + seed)
    truth = Truth(tokenizer, run["products"])
    trainer.add_callback(truth)
    callback = PassKGuardCallback(
        trainer, prompts=held_out, k=8, objective=run["objective"], every=10, seed=seed
    )
    trainer.add_callback(callback)
    trainer.train()
    history = callback.guard.history
    start, end = truth.values[0], truth.values[run["steps"]]
    alarm = next((p for p in history if p.alarm), None)
    errors = [
        abs(p.track.change - (truth.values[p.step][0] - start[0])) / p.track.change_se
        for p in history[1:]
    ]
    return {
        "run": name,
        "seed": seed,
        "start": f"{start[0]:.4f}",
        "end": f"{end[0]:.4f}",
        "start8": f"{start[1]:.4f}",
        "end8": f"{end[1]:.4f}",
        "alarm_step": "" if alarm is None else alarm.step,
        "fired": "" if alarm is None else "+".join(alarm.alarm.fired),
        "lost_at_alarm": "" if alarm is None else f"{start[0] - truth.values[alarm.step][0]:.4f}",
        "probes": len(history),
        "worst_error": f"{max(errors):.2f}",
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    print("| run | seeds | pass@1 | pass@8 | alarms | lost at alarm, mean (worst) | probes |")
    print("|---|---|---|---|---|---|---|")
    for name in RUNS:
        mine = [row for row in rows if row["run"] == name]
        if not mine:
            continue

        def mean(field: str, mine: list[dict[str, Any]] = mine) -> float:
            return sum(float(row[field]) for row in mine) / len(mine)

        lost = [float(row["lost_at_alarm"]) for row in mine if row["lost_at_alarm"]]
        shown = f"{sum(lost) / len(lost):.3f} ({max(lost):.3f})" if lost else "–"
        probes = sum(int(row["probes"]) for row in mine)
        print(
            f"| {name} | {len(mine)} | {mean('start'):.3f} → {mean('end'):.3f} "
            f"| {mean('start8'):.3f} → {mean('end8'):.3f} | {len(lost)} | {shown} | {probes} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--out", type=Path, default=Path("runs/alarms"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "alarms.csv"
    rows = list(csv.DictReader(path.open())) if path.exists() else []
    done = {(row["run"], int(row["seed"])) for row in rows}
    for name in options.only:
        for seed in range(options.seeds):
            if (name, seed) in done:
                continue
            row = one_run(name, seed, options.out)
            with path.open("a", newline="") as file:
                writer = csv.DictWriter(file, FIELDS)
                if not rows:
                    writer.writeheader()
                writer.writerow(row)
            rows.append({key: str(value) for key, value in row.items()})
            print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    print_table(rows)


if __name__ == "__main__":
    main()
