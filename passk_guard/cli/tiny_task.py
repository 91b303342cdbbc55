"""The task of the identity check: a model from a config, a tokenizer, prompts and a verifier."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from passk_guard.cli.tiny_policy import TinyModel, TinyPolicy

__all__ = [
    "DIGITS",
    "even",
    "examples",
    "make_model",
    "make_table",
    "make_tokenizer",
    "rows",
    "seed",
    "table_policy",
]

DIGITS = 3  # where they begin
_WORDS = ["<pad>", "<eos>", "<unk>", *map(str, range(10))]


def even(completions: list[str], **_: Any) -> list[float]:
    """The verifier: an even digit first, so that a random model is often right."""
    return [float(c[:1] in ("0", "2", "4", "6", "8")) for c in completions]


def rows() -> list[dict[str, str]]:
    """64 prompts of two digits, which a verifier need not look at."""
    return [{"prompt": f"{a} {b}"} for a in range(8) for b in range(8)]


def examples() -> list[dict[str, Tensor]]:
    """64 sequences of digits, for a loss that needs no rollouts."""
    ids = torch.arange(64 * 4).view(64, 4) * 7 % 10 + DIGITS
    return [{"input_ids": row, "labels": row} for row in ids]


def seed() -> None:
    """Seed every generator."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def make_model() -> Any:
    """A Llama of 2 k parameters, with dropout: a generator that is not restored would show."""
    from transformers import LlamaConfig, LlamaForCausalLM

    seed()
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(_WORDS),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=16,
            attention_dropout=0.1,
            attn_implementation="eager",  # fused kernels' backward is not repeatable everywhere
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    )


def make_table() -> TinyModel:
    """The model where there is no transformers."""
    seed()
    return TinyModel()


def table_policy(module: Any) -> TinyPolicy:
    """What the guard samples from, there."""
    return TinyPolicy(module.model)


def make_tokenizer() -> Any:
    """One token per digit."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    model = WordLevel({word: i for i, word in enumerate(_WORDS)}, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
    )
