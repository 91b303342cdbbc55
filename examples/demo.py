"""The demo: pass@8 training of a tiny Llama with the real TRL GRPOTrainer, twice.

Once the guard only watches: pass@8 goes up, pass@1 goes down, and it says so. Once it acts: it
mixes a pass@1 term back in, and pass@1 turns. Each ends with the guard's table, the demo
with the true values, a picture of both and the TensorBoard command. About three minutes on two
cores.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: much faster for tiny models
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
warnings.filterwarnings("ignore", category=FutureWarning)  # transformers' own, of its own calls

import ambiguous_arithmetic as task
from transformers import ProgressCallback

from passk_guard import PassKGuardWarning
from passk_guard.integrations.trl import PassKGuardCallback
from passk_guard.reporting.course import comparison_figure
from passk_guard.reporting.read_run import read_run


class Bar(ProgressCallback):
    """The trainer's progress bar without its log lines: they go to TensorBoard."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """Stay quiet."""


def run(name: str, action: str, options: argparse.Namespace) -> tuple[float, float, int | None]:
    """One guarded GRPO run; true pass@1 and pass@8 at its end, and the first alarm's step."""
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(options.out / "tensorboard" / name)
    tokenizer = task.make_tokenizer()
    model = task.make_model(tokenizer, seed=options.seed)
    model.load_state_dict(options.warm)
    trainer = task.make_trainer(
        model,
        tokenizer,
        steps=options.steps,
        learning_rate=1e-5,
        out=str(options.out / name),
        seed=options.seed,
        scale_rewards="none",
        report_to="tensorboard",
        use_cpu=not options.gpu,
    )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(Bar())
    held_out = task.make_rows(1024, seed=10_000 + options.seed)
    callback = PassKGuardCallback(
        trainer, prompts=held_out, k=8, objective="pkpo", every=10, action=action
    )
    trainer.add_callback(callback)
    trainer.train()
    alarm = next((probe.step for probe in callback.guard.history if probe.alarm), None)
    return (*task.exact_pass_at_1(model, tokenizer), alarm)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--warm-up", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--gpu", action="store_true", help="train on a GPU; slower, it is so small")
    parser.add_argument("--figures", type=Path, help="also write the true values to this JSON file")
    options = parser.parse_args()
    board = options.out / "tensorboard"
    shutil.rmtree(board, ignore_errors=True)  # of an earlier demo
    warnings.showwarning = _show
    task.expect_doubles()

    print("1/4  Warm-up: a tiny Llama learns sums, and products for 15 % of the rows.")
    tokenizer = task.make_tokenizer()
    model = task.make_model(tokenizer, seed=options.seed)
    task.warm_up(model, tokenizer, steps=options.warm_up, seed=options.seed)
    before = task.exact_pass_at_1(model, tokenizer)
    options.warm = model.state_dict()

    print('2/4  GRPO on the pass@8 objective. The guard only watches: action="warn".')
    lost = run("watched", "warn", options)
    print('3/4  The same again, and the guard acts: action="mix".')
    kept = run("guarded", "mix", options)

    picture = options.out / "passk_guard.png"
    title = "Pass@8 training of a tiny Llama on ambiguous arithmetic"
    runs = {
        "watched only": read_run(options.out / "watched").looks,
        "guarded": read_run(options.out / "guarded").looks,
    }
    comparison_figure(runs, title).savefig(picture)
    print("\n4/4  True values, by enumeration of all answers:\n")
    found = {"start": (*before, None), "end, watched only": lost, "end, guarded": kept}
    for name, (one, eight, _) in found.items():
        print(f"  {name:<18} pass@1 {one:.3f}   pass@8 {eight:.3f}")
    if options.figures:
        options.figures.write_text(json.dumps(found, indent=1) + "\n")
    print(f"\nPicture: {picture}")
    print(f"The guarded run as a page: .venv/bin/passk-guard report {options.out / 'guarded'}")
    print(f"Curves: .venv/bin/tensorboard --logdir {board}")


def _show(message: Any, category: type[Warning], *args: Any, **kwargs: Any) -> None:
    """Warnings between the lines of the progress bar, without a source line."""
    from tqdm import tqdm

    if issubclass(category, PassKGuardWarning):
        tqdm.write(f"\n⚠  {message}\n")


if __name__ == "__main__":
    main()
