"""Small trainers for the identity check: a Llama of 2 k parameters, and prompts of two digits.

Nothing is downloaded. Frameworks are imported by the trainer that needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

STEPS = 6
_WORDS = ["<pad>", "<eos>", "<unk>", *"0123456789"]
_ROWS = [{"prompt": f"{a} {b}"} for a in range(8) for b in range(8)]


def make_trl(name: str, out: str, guard: bool) -> Any:
    """TRL's ``"GRPO"`` or ``"RLOO"``, which writes to the folder ``out``, if anywhere."""
    import trl
    from datasets import Dataset

    from passk_guard.integrations.trl import PassKGuardCallback

    args = _arguments(
        getattr(trl, f"{name}Config"),
        out,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=2,
        bf16=False,
        beta=0.0,  # a reference model would be looked for in the hub
    )
    trainer = getattr(trl, f"{name}Trainer")(
        model=_model(),
        reward_funcs=_even,
        args=args,
        train_dataset=Dataset.from_list(_ROWS),
        processing_class=_tokenizer(),
    )
    if guard:
        trainer.add_callback(PassKGuardCallback(trainer, **_GUARD))
    return trainer


def make_transformers(out: str, guard: bool) -> Any:
    """``transformers.Trainer``, with the model's own loss."""
    from transformers import Trainer, TrainingArguments

    from passk_guard.integrations.transformers import PassKGuardCallback

    trainer = Trainer(
        model=_model(),
        args=_arguments(TrainingArguments, out, per_device_train_batch_size=4),
        train_dataset=_examples(),
        processing_class=_tokenizer(),
    )
    if guard:
        trainer.add_callback(PassKGuardCallback(trainer, **_GUARD, **_VERIFIER))
    return trainer


def make_lightning(package: str, out: str, guard: bool) -> tuple[Any, ...]:
    """A trainer of ``package``, a module and its data."""
    from passk_guard.integrations.lightning import PassKGuardCallback

    pl: Any = import_module(package)

    class Module(pl.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model, self.tokenizer = _model(), _tokenizer()

        def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> Any:
            return self.model(**batch).loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=1e-2)

    parts = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = pl.Trainer(
        max_steps=STEPS,
        devices=1,
        callbacks=[PassKGuardCallback(**_GUARD, **_VERIFIER)] if guard else [],
        default_root_dir=out,
        **dict.fromkeys(parts, False),
    )
    data: Any = _examples()
    return trainer, Module(), torch.utils.data.DataLoader(data, 4, shuffle=True)


def _arguments(kind: Any, out: str, **own: Any) -> Any:
    args = kind(
        output_dir=out,
        max_steps=STEPS,
        learning_rate=1e-2,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **own,
    )
    if args.n_gpu > 1:  # a batch would be split over all of them
        args._n_gpu = 1
    return args


def _even(completions: list[str], **_: Any) -> list[float]:
    """An even digit first: a random model is often right."""
    return [float(c[:1] in ("0", "2", "4", "6", "8")) for c in completions]


_GUARD: dict[str, Any] = {
    "prompts": _ROWS,
    "k": 2,
    "every": 2,
    "num_generations": 4,
    "reference_prompts": 8,
    "rollouts_per_look": 32,
}
_VERIFIER: dict[str, Any] = {"reward_funcs": _even, "max_completion_length": 2}


def _examples() -> list[dict[str, torch.Tensor]]:
    ids = torch.arange(64 * 4, device="cpu").view(64, 4) * 7 % 10 + 3
    return [{"input_ids": row, "labels": row} for row in ids]


def _model() -> Any:
    """With dropout: a generator that is not restored would show."""
    from transformers import LlamaConfig, LlamaForCausalLM

    size = {"vocab_size": len(_WORDS), "hidden_size": 16, "intermediate_size": 16}
    heads = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    tokens = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    kernel = {"attn_implementation": "eager"}  # fused ones' backward is not always repeatable
    config = LlamaConfig(**size, **heads, **tokens, **kernel, attention_dropout=0.1)
    return LlamaForCausalLM(config)


def _tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(_WORDS)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
    )
