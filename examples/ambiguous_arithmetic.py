"""Ambiguous arithmetic: a task on which pass@k training lowers pass@1, within seconds on a CPU.

A prompt ``a b =`` wants ``a + b`` on 70 % of the rows and ``a · b`` on the others, with the same
text: no policy can be right on both, so prompts interfere. A tiny Llama, warmed up on 15 % of the
second kind, answers the easy kind mostly and the hard kind rarely. Pass@k training then shifts
probability to the hard kind. With ``products=0`` every row wants the sum: a healthy task.
"""

from __future__ import annotations

import random
import warnings
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ANSWER_TOKENS = 2


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token per digit, 32 in all."""
    words = ["<pad>", "<eos>", "<unk>", "=", *map(str, range(10))]
    words += [f"<{i}>" for i in range(32 - len(words))]
    model = WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
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


def make_model(
    tokenizer: PreTrainedTokenizerFast,
    *,
    hidden: int = 64,
    layers: int = 2,
    heads: int = 4,
    dropout: float = 0.0,
    seed: int = 0,
) -> LlamaForCausalLM:
    """A Llama of 86 k parameters, from a config."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=16,
        attention_dropout=dropout,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def make_rows(count: int, *, products: float = 0.3, seed: int = 0) -> Dataset:
    """Rows with ``prompt`` and ``answer``; a share ``products`` of them wants the product."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        a, b = rng.randrange(10), rng.randrange(10)
        value = a * b if rng.random() < products else a + b
        rows.append({"prompt": f"{a} {b} =", "answer": " ".join(f"{value:02d}")})
    return Dataset.from_list(rows)


def expect_doubles() -> None:
    """There are a hundred prompts in all: held-out rows come twice, and are trained on."""
    for remark in ("the pool has .* different rows", ".* held-out prompts are also"):
        warnings.filterwarnings("ignore", f"passk-guard: {remark}")


def right_answer(completions: list[str], answer: list[str], **_: Any) -> list[float]:
    """The verifier: 1 for the two wanted digits, 0 for anything else."""
    return [float(c.split() == a.split()) for c, a in zip(completions, answer, strict=True)]


def warm_up(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    *,
    steps: int = 1500,
    products: float = 0.15,
    seed: int = 0,
) -> None:
    """Supervised training on sums, with a share of products."""
    rows = make_rows(128 * steps, products=products, seed=1000 + seed)
    text = [p + " " + a for p, a in zip(rows["prompt"], rows["answer"], strict=True)]
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    labels = ids.clone()
    labels[:, :-ANSWER_TOKENS] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=steps)
    model.train()
    for step in range(steps):
        batch = slice(128 * step, 128 * (step + 1))
        model(input_ids=ids[batch], labels=labels[batch]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()


def make_trainer(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    *,
    steps: int,
    learning_rate: float,
    out: str,
    products: float = 0.3,
    seed: int = 0,
    **settings: Any,
) -> Any:
    """A real GRPO run: 32 prompts x 16 rollouts a step, at a constant learning rate by default."""
    from trl import GRPOConfig, GRPOTrainer  # the task itself does without

    defaults = {"lr_scheduler_type": "constant", "per_device_train_batch_size": 512}
    defaults |= {"use_cpu": True, "bf16": False, "save_strategy": "no"}
    return GRPOTrainer(
        model=model,
        reward_funcs=right_answer,
        args=GRPOConfig(
            output_dir=out,
            max_steps=steps,
            learning_rate=learning_rate,
            num_generations=16,
            max_completion_length=ANSWER_TOKENS,
            seed=seed,
            **{**defaults, **settings},
        ),
        train_dataset=make_rows(4096, products=products, seed=seed),
        processing_class=tokenizer,
    )


@torch.no_grad()
def exact_pass_at_1(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, *, products: float = 0.3
) -> tuple[float, float]:
    """True pass@1 and pass@8 over all 100 prompts and both kinds: answers can be enumerated."""
    training = model.training
    model.eval()
    mean1 = mean8 = 0.0
    for share, kind in ((1 - products, int.__add__), (products, int.__mul__)):
        pairs = [(a, b) for a in range(10) for b in range(10)]
        text = [f"{a} {b} = " + " ".join(f"{kind(a, b):02d}") for a, b in pairs]
        ids = tokenizer(text, return_tensors="pt")["input_ids"].to(model.device)
        scores = model(input_ids=ids).logits[:, :-1].log_softmax(-1)
        chosen = scores.gather(-1, ids[:, 1:, None])[:, -ANSWER_TOKENS:, 0]
        p = chosen.sum(-1).exp().double()
        mean1 += share * float(p.mean())
        mean8 += share * float((1 - (1 - p) ** 8).mean())
    model.train(training)
    return mean1, mean8
