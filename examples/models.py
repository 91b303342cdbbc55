"""The model of an example: a real one by its name, or a tiny stand-in that needs no download."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from passk_guard.rollouts.group import packed


def load(name: str | None, texts: list[str] | None = None) -> tuple[Any, Any]:
    """Model and tokenizer.

    Args:
        name: on the Hugging Face hub, or a folder. ``None``: the stand-in.
        texts: that the stand-in's tokenizer is learned on.
    """
    if name is None:
        torch.set_num_threads(1)  # much faster for tiny models
        tokenizer = _tiny_tokenizer(texts or [])
        return _tiny_model(tokenizer), tokenizer
    # Weights in float32, whatever the hardware: bfloat16 would round an RL step away. The trainer
    # computes in bfloat16 where it can.
    model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
    return model.train(), AutoTokenizer.from_pretrained(name)


def as_prompt(question: str, tokenizer: Any) -> Any:
    """Chat messages where the model has a chat template, else the text as it is."""
    if tokenizer.chat_template is None:
        return question + "\n"
    return [{"role": "user", "content": question}]


def text_of(completion: Any) -> str:
    """What the model said, of a text or of chat messages."""
    return str(completion if isinstance(completion, str) else completion[-1]["content"])


def teach(model: Any, tokenizer: Any, prompts: list[str], answers: list[str], steps: int) -> None:
    """Supervised warm-up of the stand-in, so that there is something to reinforce."""
    asked = tokenizer(prompts)["input_ids"]
    told = tokenizer([answer + tokenizer.eos_token for answer in answers])["input_ids"]
    ids, attention, mask = packed(asked, told, [[1] * len(tokens) for tokens in told])
    labels = ids.masked_fill(mask == 0, -100)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=steps)
    for _ in range(steps):
        rows = torch.randint(len(prompts), (32,))
        batch = {"input_ids": ids[rows], "attention_mask": attention[rows], "labels": labels[rows]}
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()


def _tiny_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    learner = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<pad>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, learner)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        eos_token="<eos>",
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
    )


def _tiny_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama of 150 k parameters, untrained."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1024,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)
