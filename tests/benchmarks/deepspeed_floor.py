"""Whether ``mix`` holds pass@1 where DeepSpeed shares the model out over two processes.

    DS_ACCELERATOR=cpu torchrun --nproc_per_node 2 tests/benchmarks/deepspeed_floor.py

Pass@8 training on ambiguous arithmetic for 300 steps by ``GRPOTrainer``, as in
``closed_loop_trainers.py``, at ZeRO-2 and ZeRO-3, watched and guarded. Each process has half
of a batch. The truth is enumerated every ten steps. Finished runs are kept in
``results/deepspeed_floor.csv`` and not repeated. A run takes some minutes.
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path
from typing import Any

from bench import FinishedRuns

# isort: split
import ambiguous_arithmetic as task
from arithmetic_loop import warmed_up
from closed_loop_trainers import LR, QUIET, Look, TrainerTruth, settings

from passk_guard.integrations.trl import PassKGuardCallback


def deepspeed(stage: int) -> dict[str, Any]:
    auto = (
        "train_micro_batch_size_per_gpu",
        "train_batch_size",
        "gradient_accumulation_steps",
        "gradient_clipping",
    )
    return {
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        **dict.fromkeys(auto, "auto"),
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
        **QUIET,
        deepspeed=deepspeed(stage),
    )
    callback = PassKGuardCallback(trainer, **settings(action, seed, "pkpo"))
    trainer.add_callback(TrainerTruth(look))
    trainer.add_callback(callback)
    trainer.train()
    guard = callback.guard
    return {
        "stage": stage,
        "action": action,
        "seed": seed,
        **look.row(guard),
        "failures": len(guard.failures),
        "gradients": guard._prober.gradients.said.split(",")[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=10)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/deepspeed_floor"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    finished = FinishedRuns("deepspeed_floor.csv", "stage", "action", "seed")
    for stage in (2, 3):
        for action in ("warn", "mix"):
            if not finished.has(stage, action, options.seed):
                row = one_run(stage, action, options.seed, options.steps, options.out)
                if os.environ["RANK"] == "0":
                    finished.add(row)


if __name__ == "__main__":
    main()
