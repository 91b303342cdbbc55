"""Whether ``mix`` holds pass@1 where DeepSpeed shares the model out over two processes.

    DS_ACCELERATOR=cpu torchrun --nproc_per_node 2 tests/benchmarks/deepspeed_floor.py

Pass@8 training on ambiguous arithmetic for 300 steps by ``GRPOTrainer``, as in
``closed_loop_trainers.py``, at ZeRO-2 and ZeRO-3, watched and guarded. Each process has half
of a batch. The truth is enumerated every ten steps. Finished runs are kept in
``results/deepspeed_floor.csv`` and not repeated. A run takes some minutes.
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
sys.path[:0] = [
    str(Path(__file__).parents[1] / "helpers"),
    str(Path(__file__).parents[2] / "examples"),
]
warnings.simplefilter("ignore")

import ambiguous_arithmetic as task
from arithmetic_loop import warmed_up
from closed_loop_trainers import LR, Look, TrainerTruth, settings

from passk_guard.integrations.trl import PassKGuardCallback

FIELDS = "stage action seed start1 end1 lowest1 start8 end8 alarm weight failures gradients".split()
RESULTS = Path(__file__).parent / "results" / "deepspeed_floor.csv"


def deepspeed(stage: int) -> dict[str, Any]:
    return {
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        **dict.fromkeys(
            (
                *("train_micro_batch_size_per_gpu", "train_batch_size"),
                *("gradient_accumulation_steps", "gradient_clipping"),
            ),
            "auto",
        ),
    }


def one_run(stage: int, action: str, seed: int, steps: int, out: Path) -> dict[str, Any]:
    look = Look()
    look.model, look.tokenizer = warmed_up(seed, out)
    trainer = task.make_trainer(
        look.model,
        look.tokenizer,
        steps=steps,
        learning_rate=LR,
        out=str(out / "trainer"),
        seed=seed,
        per_device_train_batch_size=256,
        scale_rewards="none",
        report_to="none",
        disable_tqdm=True,
        logging_steps=10_000,
        deepspeed=deepspeed(stage),
    )
    callback = PassKGuardCallback(trainer, **settings(action, seed, "pkpo"))
    trainer.add_callback(TrainerTruth(look))
    trainer.add_callback(callback)
    trainer.train()
    guard = callback.guard
    ones, eights = zip(*(look.values[step] for step in sorted(look.values)), strict=True)
    return {
        **{"stage": stage, "action": action, "seed": seed},
        **{"start1": f"{ones[0]:.4f}", "end1": f"{ones[-1]:.4f}", "lowest1": f"{min(ones):.4f}"},
        **{"start8": f"{eights[0]:.4f}", "end8": f"{eights[-1]:.4f}"},
        "alarm": next((p.step for p in guard.history if p.alarm), ""),
        **{"weight": f"{guard.pass1_weight:.3f}", "failures": len(guard.failures)},
        "gradients": guard._prober.gradients.said.split(",")[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=10)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/deepspeed_floor"))
    options = parser.parse_args()
    first = os.environ["RANK"] == "0"
    options.out.mkdir(parents=True, exist_ok=True)
    rows = list(csv.DictReader(RESULTS.open())) if RESULTS.exists() else []
    done = {(int(row["stage"]), row["action"], int(row["seed"])) for row in rows}
    for stage in (2, 3):
        for action in ("warn", "mix"):
            if (stage, action, options.seed) in done:
                continue
            row = one_run(stage, action, options.seed, options.steps, options.out)
            if not first:
                continue
            with RESULTS.open("a", newline="") as file:
                writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
                if not rows:
                    writer.writeheader()
                writer.writerow(row)
            rows.append({key: str(value) for key, value in row.items()})
            print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
