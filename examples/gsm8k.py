"""GRPO on GSM8K with math-verify as verifier, guarded by one line.

By default a tiny untrained Llama, so that it runs offline in a minute. It solves nothing, and that
is the point: the guard says "no signal", raises no alarm and costs next to nothing. Give a model by
name to use it for real: ``python examples/gsm8k.py --model Qwen/Qwen2.5-0.5B-Instruct``.

Data: 200 problems of the GSM8K test split (Cobbe et al. 2021, arXiv 2110.14168), MIT licence, see
data/gsm8k/LICENSE.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore", category=FutureWarning)  # transformers' own, of its own calls

from datasets import Dataset
from math_verify import parse, verify
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from passk_guard.integrations.trl import PassKGuardCallback

DATA = Path(__file__).parent / "data" / "gsm8k" / "test-200.jsonl"
ASK = "\nThink step by step and give the final answer behind ####.\n"


def load_rows() -> Dataset:
    problems = [json.loads(line) for line in DATA.read_text().splitlines()]
    return Dataset.from_list(
        [
            {"prompt": p["question"] + ASK, "answer": p["answer"].split("####")[-1].strip()}
            for p in problems
        ]
    )


def solved(completions: list[str], answer: list[str], **_: Any) -> list[float]:
    """1 where math-verify finds the reference answer behind the last ####."""
    final = [c.rpartition("####") for c in completions]
    return [
        float(bool(marker) and verify(parse(a), parse(text)))
        for (_, marker, text), a in zip(final, answer, strict=True)
    ]


def tiny_untrained(rows: Dataset) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A byte-level BPE learned on the prompts, and random weights."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<eos>"]
    learner = trainers.BpeTrainer(
        vocab_size=512, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(rows["prompt"], learner)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1024,
    )
    return LlamaForCausalLM(config), tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="name or path of a real model")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--out", default="runs/gsm8k")
    options = parser.parse_args()
    rows = load_rows()
    if options.model is None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        model, tokenizer = tiny_untrained(rows)
        tiny: dict[str, Any] = {"use_cpu": True, "bf16": False, "max_completion_length": 32}
    else:
        model, tokenizer, tiny = options.model, None, {"max_completion_length": 256}
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=solved,
        args=GRPOConfig(
            output_dir=options.out,
            max_steps=options.steps,
            per_device_train_batch_size=32,
            num_generations=8,
            report_to="tensorboard",
            logging_steps=10,
            save_strategy="no",
            **tiny,
        ),
        train_dataset=rows.select(range(100)),
        processing_class=tokenizer,
    )
    held_out = rows.select(range(100, 200))
    callback = PassKGuardCallback(trainer, prompts=held_out, k=4, prompts_per_probe=12)
    trainer.add_callback(callback)
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    share = callback.guard.schedule.share
    print(f"\n{seconds:.0f} s of training, {100 * share:.0f} % of it in probes.")


if __name__ == "__main__":
    main()
