"""passk-guard in a plain ``transformers.Trainer`` with a loss of its own.

    python examples/hf_trainer.py
    python examples/hf_trainer.py --model Qwen/Qwen2.5-0.5B-Instruct

The trainer optimises pass@8 by a policy gradient that it computes itself. The guard does not reach
into that loss: ``action="mix"`` adds a pass@1 loss on anchor prompts. (Where your loss has a
``PassKObjective``, pass it as ``objective=`` instead: steering it costs nothing.)
"""

from __future__ import annotations

from typing import Any

import tasks
import torch
from passk_loss import passk_loss
from transformers import Trainer, TrainingArguments

from passk_guard import HFPolicy, PassKObjective
from passk_guard.integrations.transformers import PassKGuardCallback


class PassKTrainer(Trainer):
    """Pass@8 policy gradient, 16 rollouts per prompt."""

    objective: PassKObjective
    verify: Any

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any
    ) -> torch.Tensor:
        """Sample with the weights of the moment, verify, weigh."""
        policy = HFPolicy(self.model, self.processing_class)
        return passk_loss(policy, inputs["rows"], self.objective, self.verify, wrapped=model)


def main() -> None:
    options = tasks.options(__doc__, steps=100, out="runs/hf_trainer")
    task = tasks.load(options.model, options.warm_up)
    trainer = PassKTrainer(
        model=task.model,
        processing_class=task.tokenizer,
        args=TrainingArguments(
            output_dir=options.out,
            max_steps=options.steps,
            learning_rate=task.learning_rate,
            lr_scheduler_type="constant",
            per_device_train_batch_size=task.prompts_at_once,
            gradient_accumulation_steps=task.accumulate,
            bf16=options.bf16,
            use_cpu=not options.real,
            remove_unused_columns=False,
            report_to="none",
            save_strategy="no",
        ),
        train_dataset=task.training,
        data_collator=lambda rows: {"rows": rows},
    )
    trainer.objective, trainer.verify = PassKObjective(k=8), task.verify
    callback = PassKGuardCallback(
        trainer,
        prompts=task.held_out,
        reward_funcs=task.verify,
        k=8,
        reference_prompts=task.reference_prompts,
        every=10,
        action=["warn", "mix"],
        anchor_prompts=task.training,
    )
    trainer.add_callback(callback)
    trainer.train()


if __name__ == "__main__":
    main()
