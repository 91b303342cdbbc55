"""passk-guard in Lightning, with a module whose loss is its own.

    python examples/lightning_module.py
    python examples/lightning_module.py --model Qwen/Qwen2.5-0.5B-Instruct

The module optimises pass@8 through a ``PassKObjective``. The same object is given to the guard,
which then steers it: no anchor prompts, no extra cost.
"""

from __future__ import annotations

from typing import Any

import lightning as L
import tasks
import torch
from passk_loss import passk_loss
from torch.utils.data import DataLoader

from passk_guard import HFPolicy, PassKObjective
from passk_guard.integrations.lightning import PassKGuardCallback


class PassKModule(L.LightningModule):
    """Pass@8 policy gradient, 16 rollouts per prompt; the guard finds model and tokenizer."""

    def __init__(self, model: Any, tokenizer: Any, verify: Any, learning_rate: float) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.verify, self.learning_rate = verify, learning_rate
        self.objective = PassKObjective(k=8)

    def training_step(self, rows: list[dict[str, Any]], batch_idx: int) -> torch.Tensor:
        """Sample with the weights of the moment, verify, weigh."""
        policy = HFPolicy(self.model, self.tokenizer)
        loss = passk_loss(policy, rows, self.objective, self.verify)
        self.log("loss", loss, batch_size=len(rows))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.model.parameters(), lr=self.learning_rate)


def main() -> None:
    options = tasks.options(__doc__, steps=100, out="runs/lightning")
    task = tasks.load(options.model, options.warm_up)
    module = PassKModule(task.model, task.tokenizer, task.verify, task.learning_rate)
    callback = PassKGuardCallback(
        prompts=task.held_out,
        reward_funcs=task.verify,
        k=8,
        reference_prompts=task.reference_prompts,
        every=10,
        objective=module.objective,
        action=["warn", "mix"],
    )
    trainer = L.Trainer(
        max_steps=options.steps,
        accumulate_grad_batches=task.accumulate,
        accelerator="auto" if options.real else "cpu",
        devices=1,
        precision="bf16-mixed" if options.bf16 else "32-true",
        callbacks=[callback],
        default_root_dir=options.out,
        enable_checkpointing=False,
    )
    rows = task.training.to_list()
    trainer.fit(module, DataLoader(rows, task.prompts_at_once, shuffle=True, collate_fn=list))


if __name__ == "__main__":
    main()
