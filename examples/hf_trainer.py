"""passk-guard in a plain ``transformers.Trainer`` with a loss of its own.

    python examples/hf_trainer.py --steps 100

The trainer optimises pass@8 on ambiguous arithmetic by a policy gradient that it computes itself.
The guard cannot reach into that loss: ``action="mix"`` adds a pass@1 loss on anchor prompts. (Where
you can, pass your ``PassKObjective`` as ``objective=`` instead: steering it costs nothing.)
"""

from __future__ import annotations

import argparse
import os
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: much faster for tiny models
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import ambiguous_arithmetic as task
import torch
from transformers import Trainer, TrainingArguments

from passk_guard import HFPolicy, PassKObjective
from passk_guard.integrations.transformers import PassKGuardCallback


class PassKTrainer(Trainer):
    """Pass@k policy gradient, 16 rollouts per prompt."""

    objective: PassKObjective
    verify = staticmethod(task.right_answer)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any
    ) -> torch.Tensor:
        """Sample with the weights of the moment, verify, weigh."""
        policy = HFPolicy(self.model, self.processing_class, max_completion_length=2)
        return task.passk_loss(policy, inputs["rows"], 16, self.objective, self.verify, model)


def make_trainer(
    model: Any, out: str, *, steps: int, seed: int = 0, **settings: Any
) -> PassKTrainer:
    """32 prompts a step, Adam at a rate at which a guard has time to act."""
    defaults = {
        "per_device_train_batch_size": 32,
        "learning_rate": 1e-5,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
    }
    trainer = PassKTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=out,
            max_steps=steps,
            seed=seed,
            use_cpu=True,
            remove_unused_columns=False,
            **{"save_strategy": "no", "report_to": "none", **defaults, **settings},
        ),
        train_dataset=task.make_rows(4096, seed=seed),
        data_collator=lambda rows: {"rows": rows},
        processing_class=task.make_tokenizer(),
    )
    trainer.objective = PassKObjective(k=8)
    return trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--warm-up", type=int, default=1500)
    parser.add_argument("--out", default="runs/hf_trainer")
    options = parser.parse_args()
    tokenizer = task.make_tokenizer()
    model = task.make_model(tokenizer)
    task.warm_up(model, tokenizer, steps=options.warm_up)
    trainer = make_trainer(model, options.out, steps=options.steps, disable_tqdm=False)
    callback = PassKGuardCallback(
        trainer,
        prompts=task.make_rows(1024, seed=1),
        reward_funcs=task.right_answer,
        k=8,
        every=10,
        max_completion_length=2,
        action=["warn", "mix"],
        anchor_prompts=task.make_rows(1024, seed=2),
    )
    trainer.add_callback(callback)
    trainer.train()


if __name__ == "__main__":
    main()
