"""SimKO (Peng et al. 2025, arXiv 2510.14807) in a torch loop of one's own; the guard watches.

    python examples/simko.py
    python examples/simko.py --model Qwen/Qwen2.5-0.5B-Instruct

At forking tokens a right rollout also lifts the likeliest candidates, and a wrong one that sampled
the first candidate is punished more.
"""

from __future__ import annotations

import random

import tasks
import torch
from passk_loss import ROLLOUTS
from torch import Tensor

from passk_guard import HeldOutPool, HFPolicy, PassKGuard, PassKGuardConfig
from passk_guard.objectives.advantages import leave_one_out_advantages
from passk_guard.reporting.journal import Journal
from passk_guard.reporting.report import begin_run, end_run, publish
from passk_guard.reporting.table import history_table
from passk_guard.rollouts.group import stacked
from passk_guard.rollouts.verified_policy import VerifiedPolicy
from passk_guard.runtime.isolation import isolated

TOP_K, SMOOTHING, FORKING, PENALTY, CLIP = 3, 0.01, 0.8, 1.1, 0.2


def simko(new: Tensor, old: Tensor, tokens: Tensor, mask: Tensor, advantages: Tensor) -> Tensor:
    """``(b, T)`` surrogate to be maximised, from ``(b, T, V)`` logits of now and of sampling."""
    old = old.float().log_softmax(-1)
    change = new.float().log_softmax(-1) - old
    ratio = change.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).exp()
    entropy = -(old.exp() * old).sum(-1).masked_fill(mask == 0, torch.nan)
    fork = entropy > torch.nanquantile(entropy, FORKING, dim=-1, keepdim=True)
    best = old.topk(TOP_K, -1).indices
    lifts = change.gather(-1, best).exp()
    lift = (ratio.detach().unsqueeze(-1) / lifts.detach() * lifts).mean(-1)
    right = (advantages > 0).unsqueeze(-1)
    ratio = torch.where(fork & right, (1 - SMOOTHING) * ratio + SMOOTHING * lift, ratio)
    punished = fork & ~right & (tokens == best[..., 0])
    weight = advantages.unsqueeze(-1) * torch.where(punished, PENALTY, 1.0)
    return torch.minimum(ratio * weight, ratio.clamp(1 - CLIP, 1 + CLIP) * weight) * mask


def main() -> None:
    options = tasks.options(__doc__, steps=50, out="runs/simko")
    task = tasks.load(options.model, options.warm_up)
    model = task.model.to(options.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=task.learning_rate)
    policy = VerifiedPolicy(HFPolicy(model, task.tokenizer), task.verify)
    pool = HeldOutPool(task.held_out.to_list())
    config = PassKGuardConfig(k=8, reference_prompts=task.reference_prompts, every=10)
    guard = PassKGuard(policy, pool, config, isolation=lambda seed: isolated(model, seed=seed))
    journal, training = Journal(options.out), task.training.to_list()
    begin_run(guard, journal, 0, "SimKO loop")
    for step in range(options.steps + 1):
        if (due := guard.due(step)) is not None:
            publish(guard.run(due, step), guard, journal, lambda report: None)
        rows = random.sample(training, task.prompts_at_once)
        groups = policy.generate(rows, range(len(rows)), ROLLOUTS)
        rewards = torch.stack([group.success for group in groups]).to(options.device)
        ids, attention, sampled = (part.to(options.device) for part in stacked(groups))
        old, advantages = None, leave_one_out_advantages(rewards).flatten()
        for _ in range(2):  # steps on the same rollouts
            logits = model(ids, attention_mask=attention).logits[:, :-1]
            old = logits.detach() if old is None else old
            gains = simko(logits, old, ids[:, 1:], sampled[:, 1:], advantages)
            (-gains.sum() / sampled.sum()).backward()
            optimizer.step()
            optimizer.zero_grad()
    end_run(guard, journal, options.steps)
    print(history_table(guard.history))


if __name__ == "__main__":
    main()
