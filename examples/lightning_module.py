"""passk-guard in Lightning, with a module whose loss is its own.

    python examples/lightning_module.py --steps 100

The module optimises pass@8 on ambiguous arithmetic through a ``PassKObjective``. The same object is
given to the guard, which then steers it: no anchor prompts, no extra cost.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: much faster for tiny models
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import ambiguous_arithmetic as task
import lightning as L
import torch
from torch.utils.data import DataLoader

from passk_guard import HFPolicy, PassKObjective
from passk_guard.integrations.lightning import PassKGuardCallback


class PassKModule(L.LightningModule):
    """Pass@k policy gradient, 16 rollouts per prompt; the guard finds ``model``, ``tokenizer``."""

    verify = staticmethod(task.right_answer)

    def __init__(self, model: Any, tokenizer: Any, learning_rate: float = 1e-5) -> None:
        super().__init__()
        self.model, self.tokenizer, self.learning_rate = model, tokenizer, learning_rate
        self.objective = PassKObjective(k=8)

    def training_step(self, rows: list[dict[str, Any]], batch_idx: int) -> torch.Tensor:
        """Sample with the weights of the moment, verify, weigh."""
        policy = HFPolicy(self.model, self.tokenizer, max_completion_length=2)
        loss = task.passk_loss(policy, rows, 16, self.objective, self.verify)
        self.log("loss", loss, batch_size=len(rows))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.model.parameters(), lr=self.learning_rate)


def loader(seed: int = 0, batch: int = 32) -> DataLoader[Any]:
    """Training rows."""
    rows = task.make_rows(4096, seed=seed).to_list()
    return DataLoader(rows, batch, shuffle=True, collate_fn=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--warm-up", type=int, default=1500)
    parser.add_argument("--out", default="runs/lightning")
    options = parser.parse_args()
    tokenizer = task.make_tokenizer()
    model = task.make_model(tokenizer)
    task.warm_up(model, tokenizer, steps=options.warm_up)
    module = PassKModule(model, tokenizer)
    callback = PassKGuardCallback(
        prompts=task.make_rows(1024, seed=1),
        reward_funcs=task.right_answer,
        k=8,
        every=10,
        max_completion_length=2,
        objective=module.objective,
        action=["warn", "mix"],
    )
    trainer = L.Trainer(
        max_steps=options.steps,
        accelerator="cpu",
        callbacks=[callback],
        default_root_dir=options.out,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader())


if __name__ == "__main__":
    main()
