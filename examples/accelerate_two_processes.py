"""GRPO on two processes by ``accelerate launch``: the same one line.

    accelerate launch --multi_gpu --num_processes 2 examples/accelerate_two_processes.py
    (with --model Qwen/Qwen2.5-0.5B-Instruct behind it: two GPUs)

``--multi_gpu`` is right on a CPU too: with ``--cpu`` accelerate starts one process, whatever the
number. The prompts of a probe are shared out: each process samples, verifies and differentiates its
part. Then all have the same figures, the same verdict and the same λ; the first one alone warns,
prints and writes.
"""

from __future__ import annotations

from typing import Any

import tasks
from trl import GRPOConfig, GRPOTrainer

from passk_guard.integrations.trl import PassKGuardCallback
from passk_guard.reporting.table import history_table
from passk_guard.runtime.processes import everywhere


def main() -> None:
    options = tasks.options(__doc__, steps=100, out="runs/accelerate")
    task = tasks.load(options.model, options.warm_up)
    verified = 0

    def verify(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
        nonlocal verified
        verified += len(completions)
        return task.verify(completions=completions, answer=answer)

    trainer = GRPOTrainer(
        model=task.model,
        reward_funcs=task.verify,
        args=GRPOConfig(
            output_dir=options.out,
            max_steps=options.steps,
            learning_rate=task.learning_rate,
            lr_scheduler_type="constant",
            per_device_train_batch_size=8 * task.prompts_at_once,  # of 16 x that, on each of two
            gradient_accumulation_steps=task.accumulate,
            num_generations=16,
            max_completion_length=task.model.generation_config.max_new_tokens,
            scale_rewards="none",
            bf16=options.bf16,
            use_cpu=not options.real,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=task.training,
        processing_class=task.tokenizer,
    )
    callback = PassKGuardCallback(
        trainer,
        prompts=task.held_out,
        reward_funcs=verify,  # the task's, which counts what this process verifies for the guard
        k=8,
        objective="pkpo",
        reference_prompts=task.reference_prompts,
        every=10,
        action=["warn", "mix"],
    )
    trainer.add_callback(callback)
    trainer.train()
    history = history_table(callback.guard.history)
    seen = everywhere(lambda: (verified, history))  # from every process, to every process
    if trainer.is_world_process_zero():
        for process, (count, theirs) in enumerate(seen):
            same = "the same" if theirs == history else "ANOTHER"
            print(f"Process {process} verified {count} held-out rollouts, and has {same} table.")


if __name__ == "__main__":
    main()
