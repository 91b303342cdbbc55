"""Small runs of trainers with a loss of their own, made from the classes of the examples."""

from __future__ import annotations

from typing import Any

import ambiguous_arithmetic as task
from hf_trainer import PassKTrainer
from lightning_module import PassKModule
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from passk_guard import PassKObjective


def make_trainer(
    model: Any, out: str, *, steps: int, seed: int = 0, verify=task.right_answer, **settings: Any
) -> PassKTrainer:
    """32 prompts a step, Adam at a rate at which a guard has time to act."""
    defaults = {
        "per_device_train_batch_size": 32,
        "learning_rate": 1e-5,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
    }
    model.generation_config.max_new_tokens = task.ANSWER_TOKENS
    trainer = PassKTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=out,
            max_steps=steps,
            seed=seed,
            remove_unused_columns=False,
            **{**defaults, **settings},
        ),
        train_dataset=task.make_rows(4096, seed=seed),
        data_collator=lambda rows: {"rows": rows},
        processing_class=task.make_tokenizer(),
    )
    trainer.objective, trainer.verify = PassKObjective(k=8), verify
    return trainer


class Module(PassKModule):
    """Of a model that answers in two tokens."""

    def __init__(self, model, tokenizer, learning_rate=1e-5, verify=task.right_answer):
        model.generation_config.max_new_tokens = task.ANSWER_TOKENS
        super().__init__(model, tokenizer, verify, learning_rate)


def loader(seed: int = 0, batch: int = 32) -> DataLoader[Any]:
    """Training rows."""
    rows = task.make_rows(4096, seed=seed).to_list()
    return DataLoader(rows, batch, shuffle=True, collate_fn=list)
