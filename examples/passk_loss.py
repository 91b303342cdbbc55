"""A pass@k loss of one's own, for loops and trainers that come without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from passk_guard import HFPolicy, PassKObjective
from passk_guard.rollouts.group import stacked
from passk_guard.rollouts.token_log_probs import token_log_probs

ROLLOUTS = 16  # of a prompt; more than k


def passk_loss(
    policy: HFPolicy,
    rows: list[dict[str, Any]],
    objective: PassKObjective,
    verify: Callable[..., list[float]],
    wrapped: Any = None,
) -> torch.Tensor:
    """Sample with the weights of the moment, verify, weigh by pass@k advantages.

    On several processes gradients are averaged only through the trainer's wrapper of the model:
    pass it as ``wrapped`` where it is at hand.
    """
    model = policy.model
    model.eval()  # rollouts come from the policy itself, not from a thinned-out one
    groups = policy.generate(rows, range(len(rows)), ROLLOUTS)
    model.train()
    each = [row for row in rows for _ in range(ROLLOUTS)]
    columns = {name: [row[name] for row in each] for name in rows[0] if name != "prompt"}
    completions = [c for group in groups for c in group.completions or ()]
    rewards = torch.tensor(verify(completions=completions, **columns))
    advantages = objective(rewards.view(-1, ROLLOUTS)).flatten()
    ids, mask, sampled = (part.to(model.device) for part in stacked(groups))
    called = model if wrapped is None else wrapped  # a compiled one has no truth value
    scores = token_log_probs(called, ids, mask, sampled).sum(-1)
    return -(advantages.to(scores) * scores).mean()
