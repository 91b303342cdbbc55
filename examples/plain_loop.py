"""passk-guard in a torch loop of one's own: no trainer.

    python examples/plain_loop.py
    python examples/plain_loop.py --model Qwen/Qwen2.5-0.5B-Instruct

The loop optimises pass@8 through a ``PassKObjective``, which the guard steers. It asks the guard
after each step, and writes what it saw to a JSONL and to TensorBoard.
"""

from __future__ import annotations

import random
import time
from functools import partial

import tasks
import torch
from passk_loss import passk_loss
from torch.utils.tensorboard import SummaryWriter

from passk_guard import HeldOutPool, HFPolicy, PassKGuard, PassKGuardConfig, PassKObjective
from passk_guard.reporting.journal import Journal
from passk_guard.reporting.report import Report, begin_run, end_run, publish
from passk_guard.reporting.table import history_table
from passk_guard.rollouts.verified_policy import VerifiedPolicy
from passk_guard.runtime.isolation import isolated


def main() -> None:
    options = tasks.options(__doc__, steps=100, out="runs/plain_loop")
    task = tasks.load(options.model, options.warm_up)
    model, objective = task.model.to(options.device), PassKObjective(k=8)
    optimizer = torch.optim.Adam(model.parameters(), lr=task.learning_rate)
    autocast = partial(torch.autocast, options.device, torch.bfloat16, enabled=options.bf16)
    policy = HFPolicy(model, task.tokenizer)
    guard = PassKGuard(
        VerifiedPolicy(policy, task.verify, autocast=autocast),
        HeldOutPool(task.held_out.to_list()),
        PassKGuardConfig(
            k=8, reference_prompts=task.reference_prompts, every=10, action=["warn", "mix"]
        ),
        isolation=lambda seed: isolated(model, seed=seed),  # a probe leaves no trace in the run
        objective=objective,  # the one in the loss below
        say=print,
    )
    journal, board = Journal(options.out), SummaryWriter(options.out)
    begin_run(guard, journal, 0, "plain loop")

    def send(report: Report) -> None:
        for name, value in report.scalars.items():
            board.add_scalar(name, value, report.step)

    def look(step: int) -> None:
        if (due := guard.due(step)) is not None:
            publish(guard.run(due, step), guard, journal, send)

    training = task.training.to_list()
    look(0)
    for step in range(1, options.steps + 1):
        began = time.perf_counter()
        for _ in range(task.accumulate):
            rows = random.sample(training, task.prompts_at_once)
            with autocast():
                loss = passk_loss(policy, rows, objective, task.verify)
            (loss / task.accumulate).backward()
        optimizer.step()
        optimizer.zero_grad()
        guard.schedule.trained(time.perf_counter() - began)
        look(step)
    end_run(guard, journal, options.steps)
    board.close()
    print(history_table(guard.history))
    print(f"More: passk-guard report {options.out}")


if __name__ == "__main__":
    main()
