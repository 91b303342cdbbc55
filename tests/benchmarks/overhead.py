"""Is a cost budget kept? Real GRPO runs whose steps change in length, one table.

    python tests/benchmarks/overhead.py        # budgets of 1, 2 and 5 %, about twenty minutes

Steps are lengthened by sleeping, in three phases, so that the run is long beside its probes, as
real ones are. The share is measured from outside: a clock around every call into the guard.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
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


class Slow(TrainerCallback):
    """Steps of changing length: middling, long, short."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_begin(self, args, state, control, **kwargs):
        time.sleep((0.15, 0.4, 0.05)[3 * state.global_step // self.steps])


class Clocked(PassKGuardCallback):
    """Adds up the wall time of every call into the callback."""

    spent = 0.0

    def _clocked(self, event: str, *args: Any, **kwargs: Any) -> None:
        start = time.perf_counter()
        getattr(super(), event)(*args, **kwargs)
        self.spent += time.perf_counter() - start

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.began = time.perf_counter()
        self._clocked("on_train_begin", *args, **kwargs)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self._clocked("on_step_end", *args, **kwargs)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self._clocked("on_train_end", *args, **kwargs)
        self.total = time.perf_counter() - self.began


def one_run(budget: float, steps: int, out: Path) -> str:
    tokenizer = task.make_tokenizer()
    model = task.make_model(tokenizer)
    task.warm_up(model, tokenizer, steps=300)
    trainer = task.make_trainer(
        model,
        tokenizer,
        steps=steps,
        learning_rate=1e-5,
        out=str(out),
        report_to="none",
        disable_tqdm=True,
        logging_steps=10_000,
    )
    trainer.add_callback(Slow(steps))
    callback = Clocked(
        trainer,
        prompts=task.make_rows(1024, seed=9),
        k=4,
        objective="pkpo",
        reference_prompts=16,
        max_overhead=budget,
    )
    trainer.add_callback(callback)
    trainer.train()
    guard = callback.guard
    return (
        f"| {budget:.0%} | {callback.spent / callback.total:.2%} | {guard.overhead:.2%} "
        f"| {len(guard.history)} | {len(guard.rescores)} | {callback.total:.0f} s |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--out", type=Path, default=Path("runs/overhead"))
    parser.add_argument("--budgets", nargs="+", type=float, default=[0.01, 0.02, 0.05])
    options = parser.parse_args()
    print("| budget | measured share | as logged | probes | re-scorings | run |")
    print("|---|---|---|---|---|---|")
    for budget in options.budgets:
        print(one_run(budget, options.steps, options.out), flush=True)


if __name__ == "__main__":
    main()
