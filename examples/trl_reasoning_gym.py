"""GRPO on a task of reasoning-gym, on the pass@4 objective, with the guard's remedy.

    python examples/trl_reasoning_gym.py
    python examples/trl_reasoning_gym.py --model Qwen/Qwen2.5-0.5B-Instruct

The task counts letters; any other will do, by its name. The tiny model has learned no more than
which counts are frequent: to answer more of them raises pass@4 and lowers pass@1.
"""

from __future__ import annotations

from typing import Any

import models
import reasoning_gym
import tasks
from datasets import Dataset
from reasoning_gym.utils import extract_answer
from trl import GRPOConfig, GRPOTrainer

from passk_guard.integrations.trl import PassKGuardCallback

ASK = "\nGive the final answer between <answer> and </answer>."
# One data set, cut in two: two of nearby seeds share rows, since row i comes from seed + i.
GYM = reasoning_gym.create_dataset("letter_counting", size=3072, seed=0, min_words=3, max_words=5)


def score(completions: list[Any], row: list[int], **_: Any) -> list[float]:
    """The task's own score, in [0, 1]."""
    answers = [extract_answer(models.text_of(completion)) for completion in completions]
    return [GYM.score_answer(answer, GYM[i]) for answer, i in zip(answers, row, strict=True)]


def main() -> None:
    options = tasks.options(__doc__, steps=50, warm_up=500, out="runs/trl_reasoning_gym")
    questions = [entry["question"] + ASK for entry in GYM]
    answers = [f"<answer>{entry['answer']}</answer>" for entry in GYM]
    model, tokenizer = models.load(options.model, [*questions, *answers])
    prompts = [models.as_prompt(question, tokenizer) for question in questions]
    if not options.real:
        models.teach(model, tokenizer, prompts[:2048], answers[:2048], steps=options.warm_up)
    rows = Dataset.from_dict({"prompt": prompts, "row": range(len(prompts))})
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=score,
        args=GRPOConfig(
            output_dir=options.out,
            max_steps=options.steps,
            learning_rate=1e-6 if options.real else 1e-4,
            per_device_train_batch_size=8 if options.real else 128,
            gradient_accumulation_steps=8 if options.real else 1,
            num_generations=8,
            max_completion_length=128 if options.real else 12,
            bf16=options.bf16,
            use_cpu=not options.real,
            scale_rewards="none",
            save_strategy="no",
        ),
        train_dataset=rows.select(range(2048)),
        processing_class=tokenizer,
    )
    callback = PassKGuardCallback(
        trainer,
        prompts=rows.select(range(2048, len(rows))),
        success_threshold=1.0,  # less is for an answer within other text: .5 for "12", not "1"
        k=4,
        objective="pkpo",
        reference_prompts=256,
        rollouts_per_look=512,
        every=5,
        action=["warn", "mix"],
    )
    trainer.add_callback(callback)
    trainer.train()


if __name__ == "__main__":
    main()
