"""What an example trains on: a tiny Llama on ambiguous arithmetic, or a real model on GSM8K."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ambiguous_arithmetic
import gsm8k
import models
import torch
from datasets import Dataset


@dataclass(frozen=True)
class Task:
    """A model, prompts and a verifier.

    Attributes:
        model: in float32, on the CPU; trainers move it. Its ``max_new_tokens`` says how long
            completions get.
        tokenizer: its tokenizer.
        training: rows with ``prompt`` and ``answer``.
        held_out: rows that are never trained on.
        verify: 1 for right, 0 for wrong, from completions and the rows' columns.
        prompts_at_once: whose rollouts, 16 each, go through one backward.
        accumulate: so many times for a step.
        reference_prompts: held-out rows that every look of the guard solves again.
        learning_rate: of Adam.
    """

    model: Any
    tokenizer: Any
    training: Dataset
    held_out: Dataset
    verify: Callable[..., list[float]]
    prompts_at_once: int
    accumulate: int
    reference_prompts: int
    learning_rate: float


def load(name: str | None, warm_up: int) -> Task:
    """A real model and GSM8K where there is a name, else the task that takes a minute on a CPU."""
    return _arithmetic(warm_up) if name is None else _gsm8k(name)


def _arithmetic(warm_up: int) -> Task:
    torch.set_num_threads(1)  # much faster for tiny models
    ambiguous_arithmetic.expect_doubles()
    tokenizer = ambiguous_arithmetic.make_tokenizer()
    model = ambiguous_arithmetic.make_model(tokenizer)
    model.generation_config.max_new_tokens = ambiguous_arithmetic.ANSWER_TOKENS
    ambiguous_arithmetic.warm_up(model, tokenizer, steps=warm_up)
    return Task(
        model,
        tokenizer,
        training=ambiguous_arithmetic.make_rows(4096),
        held_out=ambiguous_arithmetic.make_rows(1024, seed=1),
        verify=ambiguous_arithmetic.right_answer,
        prompts_at_once=32,
        accumulate=1,
        reference_prompts=512,
        learning_rate=1e-5,
    )


def _gsm8k(name: str) -> Task:
    model, tokenizer = models.load(name)
    model.generation_config.max_new_tokens = 256
    rows = gsm8k.make_rows(tokenizer)
    return Task(
        model,
        tokenizer,
        training=rows.select(range(100)),
        held_out=rows.select(range(100, 200)),
        verify=gsm8k.solved,
        prompts_at_once=2,
        accumulate=4,
        reference_prompts=12,
        learning_rate=1e-6,
    )


def options(doc: str | None, *, steps: int, out: str, warm_up: int = 1500) -> argparse.Namespace:
    """The command line that all examples have, and where to compute: ``device``, ``bf16``."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # transformers', of its own calls
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="name or folder of a real model; by default a tiny one")
    parser.add_argument("--steps", type=int, help=f"optimizer steps; {steps}, of a real model 500")
    parser.add_argument(
        "--warm-up", type=int, default=warm_up, help="steps of the tiny model's own"
    )
    parser.add_argument("--out", default=out, help="folder of the run")
    found = parser.parse_args()
    found.real = found.model is not None
    found.steps = found.steps or (500 if found.real else steps)
    found.device = "cuda" if found.real and torch.cuda.is_available() else "cpu"
    found.bf16 = found.device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return found
