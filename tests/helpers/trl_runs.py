"""Real GRPO runs of a tiny Llama, for the TRL tests."""

from __future__ import annotations

import ambiguous_arithmetic as task
import torch
from trl import GRPOConfig, GRPOTrainer


def make_trainer(
    tmp_path,
    *,
    steps=4,
    dropout=0.0,
    reward_funcs=None,
    callbacks=None,
    model=None,
    tokenizer=None,
    rows=None,
    parts=None,
    **config,
):
    """``parts`` are further arguments of the trainer, ``config`` those of its GRPOConfig."""
    tokenizer = tokenizer or task.make_tokenizer()
    model = model or task.make_model(tokenizer, hidden=32, layers=1, dropout=dropout)
    checkpointing = config.pop("checkpointing", False)
    name = "activation_checkpointing"
    if name not in GRPOConfig.__dataclass_fields__:
        name = "gradient_checkpointing"
    settings = {
        "output_dir": str(tmp_path),
        "per_device_train_batch_size": 16,
        "num_generations": 8,
        "learning_rate": 1e-3,
        "max_completion_length": 2,
        "max_steps": steps,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "disable_dropout": False,
        "scale_rewards": "group",
        name: checkpointing,
        **config,
    }
    return GRPOTrainer(
        model=model,
        reward_funcs=reward_funcs or near_answer,
        args=GRPOConfig(**settings),
        train_dataset=rows or task.make_rows(64),
        processing_class=tokenizer,
        callbacks=callbacks,
        **(parts or {}),
    )


def near_answer(completions, answer, **_):
    """Right when the first digit has the parity of the answer's: often so at random."""
    return [
        float(c[:1].isdigit() and int(c[0]) % 2 == int(a[0]) % 2)
        for c, a in zip(completions, answer, strict=True)
    ]


def held_out(count=128):
    return task.make_rows(count, seed=7)


def chat_rows(rows):
    """The same rows with chat messages as prompts."""
    return rows.map(lambda row: {"prompt": [{"role": "user", "content": row["prompt"]}]})


TAKES_ASYNC = "async" in GRPOTrainer.__doc__  # older TRL calls plain reward functions only
GUARD = {"k": 4, "reference_prompts": 16, "every": 2}


def weights(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def losses(trainer):
    """Every logged value but timings."""
    return [
        {k: v for k, v in entry.items() if not any(t in k for t in ("time", "runtime", "second"))}
        for entry in trainer.state.log_history
    ]


def train(trainer, callback=None):
    if callback is not None:
        trainer.add_callback(callback)
    trainer.train()
    return trainer


def same_weights(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)
