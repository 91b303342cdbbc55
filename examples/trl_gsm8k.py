"""GRPO on GSM8K with math-verify, guarded by one line.

    python examples/trl_gsm8k.py
    python examples/trl_gsm8k.py --model Qwen/Qwen2.5-0.5B-Instruct

Without a name the model is a tiny untrained Llama. It solves nothing, and that is the point: the
guard says "no signal", raises no alarm and costs next to nothing.
"""

from __future__ import annotations

import gsm8k
import models
import tasks
from trl import GRPOConfig, GRPOTrainer

from passk_guard.integrations.trl import PassKGuardCallback


def main() -> None:
    options = tasks.options(__doc__, steps=30, out="runs/trl_gsm8k")
    model, tokenizer = models.load(options.model, [p["question"] for p in gsm8k.problems()])
    rows = gsm8k.make_rows(tokenizer)
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=gsm8k.solved,
        args=GRPOConfig(
            output_dir=options.out,
            max_steps=options.steps,
            per_device_train_batch_size=8 if options.real else 32,
            gradient_accumulation_steps=8 if options.real else 1,
            num_generations=8,
            max_completion_length=256 if options.real else 32,
            bf16=options.bf16,
            use_cpu=not options.real,
            report_to="tensorboard",
            logging_steps=10,
            save_strategy="no",
        ),
        train_dataset=rows.select(range(100)),
        processing_class=tokenizer,
    )
    held_out = rows.select(range(100, 200))
    callback = PassKGuardCallback(trainer, prompts=held_out, k=4)
    trainer.add_callback(callback)
    trainer.train()


if __name__ == "__main__":
    main()
