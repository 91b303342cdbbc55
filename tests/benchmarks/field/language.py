"""A small Llama trained from scratch: its tokens, its shape, and how it learns from solutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from passk_guard.rollouts.group import packed

CHARACTERS = [chr(c) for c in range(32, 127)]
WORDS = ["Calculate", " for"]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each character and for a few words."""
    names = ["<pad>", "<eos>", "<unk>", *CHARACTERS, *WORDS]
    model = models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    pattern = Regex("|".join([*WORDS, "."]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def make_model(
    tokenizer: PreTrainedTokenizerFast, seed: int, hidden: int, layers: int, positions: int
) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=max(4, hidden // 64),
            max_position_embeddings=positions,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )


def learn(
    model: Any,
    tokenizer: Any,
    rows: Sequence[dict[str, Any]],
    *,
    steps: int,
    lr: float,
    batch: int,
) -> float:
    """Supervised steps on worked solutions, at a rate that rises and falls; the last loss."""
    asked = tokenizer([row["prompt"] for row in rows])["input_ids"]
    told = tokenizer([row["solution"] + tokenizer.eos_token for row in rows])["input_ids"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.99))
    lengths, batches = [len(a) + len(t) for a, t in zip(asked, told, strict=True)], []
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 50) * max(0.05, 1 - step / steps)
        if not batches:  # of like lengths, so that little is padding
            drawn = torch.randint(len(rows), (32 * batch,)).tolist()
            drawn.sort(key=lengths.__getitem__)
            batches = [drawn[batch * i : batch * (i + 1)] for i in torch.randperm(32)]
        pick = batches.pop()
        prompts, answers = [asked[i] for i in pick], [told[i] for i in pick]
        ids, attention, mask = packed(prompts, answers, [[1] * len(a) for a in answers])
        labels = ids.masked_fill(mask == 0, -100)
        ids, attention, labels = (t.to(model.device) for t in (ids, attention, labels))
        loss = model(input_ids=ids, attention_mask=attention, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return float(loss.detach())
