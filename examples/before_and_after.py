"""Before a run, the run, and after: probe the start, train for pass@8 under guard, compare.

    python examples/before_and_after.py
    python examples/before_and_after.py --model Qwen/Qwen2.5-0.5B-Instruct

The same as `passk-guard probe` and `passk-guard compare` on the command line, which take models
from the disk, whoever trained them.
"""

from __future__ import annotations

import copy
from pathlib import Path

import tasks
from trl import GRPOConfig, GRPOTrainer

from passk_guard import HFPolicy, compare, probe_policy
from passk_guard.integrations.trl import PassKGuardCallback
from passk_guard.statistics.policy_reading import Verdict


def main() -> None:
    options = tasks.options(__doc__, steps=60, out="runs/before_and_after")
    task, out = tasks.load(options.model, options.warm_up), Path(options.out)
    model, held_out = task.model.to(options.device), task.held_out.to_list()

    # Before: would training for pass@8 hurt pass@1 here?
    start = HFPolicy(copy.deepcopy(model), task.tokenizer)
    before = probe_policy(start, held_out, task.verify, k=8, journal=out / "probe.jsonl")
    print(before.sentence)

    # The run. Only where it would, or where that is not sure, the guard may act.
    spared = before.reading.verdict is Verdict.RAISES
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=task.verify,
        args=GRPOConfig(
            output_dir=options.out,
            max_steps=options.steps,
            learning_rate=task.learning_rate,
            lr_scheduler_type="constant",
            per_device_train_batch_size=16 * task.prompts_at_once,
            gradient_accumulation_steps=task.accumulate,
            num_generations=16,
            max_completion_length=model.generation_config.max_new_tokens,
            bf16=options.bf16,
            use_cpu=not options.real,
            save_strategy="no",
            report_to="none",
            logging_steps=options.steps,
        ),
        train_dataset=task.training,
        processing_class=task.tokenizer,
    )
    callback = PassKGuardCallback(
        prompts=task.held_out,
        k=8,
        reference_prompts=task.reference_prompts,
        every=10,
        objective="pkpo",
        action="warn" if spared else ["warn", "mix"],
    )
    trainer.add_callback(callback)
    trainer.train()

    # After: did it, and on which prompts?
    end = HFPolicy(trainer.model, task.tokenizer)
    names = ("the start", "the end")
    after = compare(start, end, prompts=held_out, verifier=task.verify, names=names)
    print(after.sentence)
    (out / "before.html").write_text(before.page(), encoding="utf-8")
    (out / "after.html").write_text(after.page(), encoding="utf-8")
    print(f"Pages: {out}/before.html, {out}/after.html")


if __name__ == "__main__":
    main()
