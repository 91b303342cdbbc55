"""The demo: pass@8 training of a tiny Llama with the real TRL GRPOTrainer, watched by the guard.

Pass@8 goes up, pass@1 goes down, and the guard says so long before the loss is large. Ends with a
table, a picture and the TensorBoard command. About a minute and a half on two cores.
"""

from __future__ import annotations

import argparse
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
warnings.filterwarnings("ignore", category=FutureWarning)  # transformers' own, of its own calls

import ambiguous_arithmetic as task
from transformers import ProgressCallback

from passk_guard import PassKGuardWarning
from passk_guard.integrations.trl import PassKGuardCallback
from passk_guard.reporting.figures import run_figure
from passk_guard.reporting.table import history_table


class Bar(ProgressCallback):
    """The trainer's progress bar without its log lines: they go to TensorBoard."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """Stay quiet."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--warm-up", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    options = parser.parse_args()
    board = options.out / "tensorboard"
    shutil.rmtree(board, ignore_errors=True)  # of an earlier demo
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(board)
    warnings.showwarning = _show

    print("1/3  Warm-up: a tiny Llama learns sums, and products for 15 % of the rows.")
    tokenizer = task.make_tokenizer()
    model = task.make_model(tokenizer, seed=options.seed)
    task.warm_up(model, tokenizer, steps=options.warm_up, seed=options.seed)
    before = task.exact_pass_at_1(model, tokenizer)

    print("2/3  GRPO on the pass@8 objective, with a probe every 10 steps.")
    trainer = task.make_trainer(
        model,
        tokenizer,
        steps=options.steps,
        learning_rate=1e-5,
        out=str(options.out),
        seed=options.seed,
        scale_rewards="none",
        report_to="tensorboard",
    )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(Bar())
    held_out = task.make_rows(1024, seed=10_000 + options.seed)
    callback = PassKGuardCallback(trainer, prompts=held_out, k=8, objective="pkpo", every=10)
    trainer.add_callback(callback)
    trainer.train()

    history = callback.guard.history
    after = task.exact_pass_at_1(model, tokenizer)
    picture = options.out / "passk_guard.png"
    title = "Pass@8 training of a tiny Llama on ambiguous arithmetic"
    run_figure(history, title).savefig(picture)
    print("\n3/3  What the guard saw:\n")
    print(history_table(history))
    print(
        f"\nTrue values, by enumeration of all answers: pass@1 {before[0]:.3f} -> {after[0]:.3f}, "
        f"pass@8 {before[1]:.3f} -> {after[1]:.3f}."
    )
    print(f"\nPicture: {picture}\nLook further: .venv/bin/tensorboard --logdir {board}")


def _show(message: Any, category: type[Warning], *args: Any, **kwargs: Any) -> None:
    """Warnings between the lines of the progress bar, without a source line."""
    from tqdm import tqdm

    if issubclass(category, PassKGuardWarning):
        tqdm.write(f"\n⚠  {message}\n")


if __name__ == "__main__":
    main()
