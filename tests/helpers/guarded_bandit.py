"""A guard on a bandit, without any trainer."""

import torch
from tiny import BanditPolicy

from passk_guard import HeldOutPool, PassKGuard, PassKGuardConfig

CONTEXTS = 64


def make_guard(policy=None, say=lambda text: None, **settings):
    policy = policy or BanditPolicy(CONTEXTS, dim=3, seed=5)
    settings = {"k": 4, "reference_prompts": 16, "every": 5, **settings}
    rows = [{"prompt": str(i)} for i in range(CONTEXTS)]
    config = PassKGuardConfig(**settings)
    return PassKGuard(
        policy, HeldOutPool(rows, config.seed), config, isolation=policy.isolated, say=say
    )


def ascend(policy, k, steps, lr=3.0):
    """Exact gradient ascent on pass@k."""
    for _ in range(steps):
        p = torch.stack([policy.success(x) for x in range(CONTEXTS)])
        (grad,) = torch.autograd.grad((1 - (1 - p) ** k).mean(), policy.weight)
        with torch.no_grad():
            policy.weight += lr * grad
