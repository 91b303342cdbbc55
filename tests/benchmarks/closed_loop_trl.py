"""The guard's rows of ``closed_loop.py`` in real ``GRPOTrainer`` runs.

    python tests/benchmarks/closed_loop_trl.py --seeds 0 1 2

Pass@8 training on ambiguous arithmetic for 300 steps, unguarded, with ``mix`` and with
``adjust_k``; the truth is enumerated at every probe. Finished runs are kept in the CSV.
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
from alarms import Truth

from passk_guard.integrations.trl import PassKGuardCallback

FIELDS = "action seed start1 end1 lowest1 start8 end8 alarm weight k".split()


def one_run(action: str, seed: int, steps: int, out: Path) -> dict[str, Any]:
    tokenizer = task.make_tokenizer()
    model = task.make_model(tokenizer, seed=seed)
    task.warm_up(model, tokenizer, seed=seed)
    trainer = task.make_trainer(
        model,
        tokenizer,
        steps=steps,
        learning_rate=1e-5,
        out=str(out / "trainer"),
        seed=seed,
        scale_rewards="none",
        report_to="none",
        disable_tqdm=True,
        logging_steps=10_000,
    )
    truth = Truth(tokenizer, 0.3, 10)
    trainer.add_callback(truth)
    held_out = task.make_rows(1024, seed=10_000 + seed)
    callback = PassKGuardCallback(
        trainer, prompts=held_out, k=8, objective="pkpo", every=10, action=action, seed=seed
    )
    trainer.add_callback(callback)
    trainer.train()
    guard = callback.guard
    ones, eights = zip(*(truth.values[step] for step in sorted(truth.values)), strict=True)
    return {
        **{"action": action, "seed": seed, "start1": f"{ones[0]:.4f}", "end1": f"{ones[-1]:.4f}"},
        **{
            "lowest1": f"{min(ones):.4f}",
            "start8": f"{eights[0]:.4f}",
            "end8": f"{eights[-1]:.4f}",
        },
        "alarm": next((p.step for p in guard.history if p.alarm), ""),
        **{"weight": f"{guard.pass1_weight:.3f}", "k": f"{guard.k:.2f}"},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--actions", nargs="+", default=["warn", "mix", "adjust_k"])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/closed_loop_trl"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "closed_loop_trl.csv"
    rows = list(csv.DictReader(path.open())) if path.exists() else []
    done = {(row["action"], int(row["seed"])) for row in rows}
    for action in options.actions:
        for seed in options.seeds:
            if (action, seed) in done:
                continue
            row = one_run(action, seed, options.steps, options.out)
            with path.open("a", newline="") as file:
                writer = csv.DictWriter(file, FIELDS)
                if not rows:
                    writer.writeheader()
                writer.writerow(row)
            rows.append({key: str(value) for key, value in row.items()})
            print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
