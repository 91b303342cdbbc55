"""The guard's rows of ``closed_loop.py`` in real runs of every trainer.

    python tests/benchmarks/closed_loop_trainers.py

Pass@8 training on ambiguous arithmetic for 300 steps, by ``GRPOTrainer``, by a ``Trainer`` and by a
Lightning module with losses of their own. The truth is enumerated every ten steps. ``mix`` steers
the objective, ``anchors`` is ``mix`` with ``anchor_prompts`` because the loss is out of reach.
Finished runs are kept in ``results/closed_loop_trainers.csv`` and not repeated: delete its rows to
run them again. A run takes two minutes and more on one core.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import FinishedRuns

# isort: split
import ambiguous_arithmetic as task
import lightning as L
import own_loss
from arithmetic_loop import warmed_up
from tables import in_trainers
from transformers import TrainerCallback

from passk_guard.integrations import lightning as for_lightning
from passk_guard.integrations import transformers as for_trainer
from passk_guard.integrations import trl as for_trl

RUNS = [
    *(("trl", action) for action in ("warn", "mix", "adjust_k")),
    *(("trainer", action) for action in ("warn", "anchors", "mix")),
    *(("lightning", action) for action in ("warn", "anchors", "mix")),
]
LR, EVERY = 1e-5, 10
QUIET = {"report_to": "none", "disable_tqdm": True, "logging_steps": 10_000}


class TrainerTruth(TrainerCallback):
    """Calls ``look(step)`` at the start and every ten steps."""

    def __init__(self, look: Callable[[int], None]) -> None:
        self.look = look

    def on_train_begin(self, args, state, control, **kwargs):
        self.look(0)

    def on_step_end(self, args, state, control, **kwargs):
        self.look(state.global_step)


class LightningTruth(L.Callback):
    """The same for Lightning."""

    def __init__(self, look: Callable[[int], None]) -> None:
        self.look = look

    def on_train_start(self, trainer, pl_module):
        self.look(0)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.look(trainer.global_step)


def settings(action: str, seed: int, objective: Any) -> dict[str, Any]:
    found = {
        "prompts": task.make_rows(1024, seed=10_000 + seed),
        "k": 8,
        "every": EVERY,
        "action": "mix" if action == "anchors" else action,
        "seed": seed,
    }
    if action == "anchors":
        found["anchor_prompts"] = task.make_rows(4096, seed=seed)
    elif objective is not None:
        found["objective"] = objective
    return found


def train(host: str, action: str, seed: int, steps: int, out: Path, look: Any) -> Any:
    """Train on the spot; gives the guard."""
    model, tokenizer = warmed_up(seed, out)
    look.model, look.tokenizer = model, tokenizer
    own = {"reward_funcs": task.right_answer, "max_completion_length": 2}
    if host == "lightning":
        module = own_loss.Module(model, tokenizer, LR)
        callback = for_lightning.PassKGuardCallback(
            **own, **settings(action, seed, module.objective)
        )
        L.seed_everything(seed)
        L.Trainer(
            max_steps=steps,
            accelerator="cpu",
            logger=False,
            callbacks=[LightningTruth(look), callback],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(module, own_loss.loader(seed))
        return callback.guard
    if host == "trl":
        trainer = task.make_trainer(
            model,
            tokenizer,
            steps=steps,
            learning_rate=LR,
            out=str(out / "trainer"),
            seed=seed,
            scale_rewards="none",
            **QUIET,
        )
        callback = for_trl.PassKGuardCallback(trainer, **settings(action, seed, "pkpo"))
    else:
        trainer = own_loss.make_trainer(
            model, str(out / "trainer"), steps=steps, seed=seed, learning_rate=LR, **QUIET
        )
        callback = for_trainer.PassKGuardCallback(
            trainer, **own, **settings(action, seed, trainer.objective)
        )
    trainer.add_callback(TrainerTruth(look))
    trainer.add_callback(callback)
    trainer.train()
    return callback.guard


class Look:
    """Enumerated pass@1 and pass@8."""

    model: Any
    tokenizer: Any

    def __init__(self) -> None:
        self.values: dict[int, tuple[float, float]] = {}

    def __call__(self, step: int) -> None:
        if step % EVERY == 0 and step not in self.values:
            self.values[step] = task.exact_pass_at_1(self.model, self.tokenizer)

    def row(self, guard: Any) -> dict[str, Any]:
        ones, eights = zip(*(self.values[step] for step in sorted(self.values)), strict=True)
        return {
            "start1": f"{ones[0]:.4f}",
            "end1": f"{ones[-1]:.4f}",
            "lowest1": f"{min(ones):.4f}",
            "start8": f"{eights[0]:.4f}",
            "end8": f"{eights[-1]:.4f}",
            "alarm": next((p.step for p in guard.history if p.alarm), ""),
            "weight": f"{guard.pass1_weight:.3f}",
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[10, 11, 12, 13, 14])
    parser.add_argument("--hosts", nargs="+", default=["trl", "trainer", "lightning"])
    parser.add_argument("--actions", nargs="+", default=["mix", "anchors"])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/closed_loop_trainers"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    finished = FinishedRuns("closed_loop_trainers.csv", "host", "action", "seed")
    for seed in options.seeds:
        for host, action in RUNS:
            wanted = host in options.hosts and action in options.actions
            if wanted and not finished.has(host, action, seed):
                look = Look()
                guard = train(host, action, seed, options.steps, options.out, look)
                names = {"host": host, "action": action, "seed": seed}
                overhead = f"{guard.overhead:.2f}"
                finished.add({**names, **look.row(guard), "overhead": overhead})
    print(in_trainers())


if __name__ == "__main__":
    main()
