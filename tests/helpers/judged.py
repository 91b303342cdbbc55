"""A bandit whose actions are text, and judges of it that change or err."""

import numpy as np
import torch
from guarded_bandit import CONTEXTS
from tiny import BanditPolicy

from passk_guard import HeldOutPool, PassKGuard, PassKGuardConfig
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.verified_policy import VerifiedPolicy


class Speaks(BanditPolicy):
    """The bandit, whose actions are text and are verified by somebody else."""

    def generate(self, rows, row_ids, n, temperature=None):
        return [
            RolloutGroup(
                g.row,
                *g.tokens,
                torch.full((n,), torch.nan),
                completions=tuple(str(ids[-1].item()) for ids in g.input_ids),
            )
            for g in super().generate(rows, row_ids, n)
        ]


class Judge:
    """Right is right, but for its noise, and from some call on for fixed rollouts."""

    def __init__(self, noise=0.0, changed=0.0, seed=0):
        self.rng, self.noise, self.changed = np.random.default_rng(seed), noise, changed
        self.changes, self.calls, self.broken = False, [], False

    def __call__(self, prompts, completions, answer, **_):
        if self.broken:
            raise ConnectionError("no judge")
        self.calls.append(len(completions))
        right = np.array([c == a for c, a in zip(completions, answer, strict=True)])
        right ^= self.rng.random(len(right)) < self.noise
        right ^= self.changes & (self.rng.random(len(right)) < self.changed)
        return [float(v) for v in right]


def make_guard(judge, policy=None, said=None, prompts=CONTEXTS, **settings):
    torch.manual_seed(0)
    policy = policy or Speaks(CONTEXTS, dim=3, seed=5)
    rows = [{"prompt": i, "answer": str(int(policy.right[i]))} for i in range(CONTEXTS)]
    settings = {"k": 4, "reference_prompts": prompts, "num_generations": 16, **settings}
    config = PassKGuardConfig(**{"every": 5, "action": lambda *_: None, **settings})
    verified = VerifiedPolicy(policy, judge)
    say = (lambda text: None) if said is None else said.append
    return PassKGuard(verified, HeldOutPool(rows), config, isolation=policy.isolated, say=say)
