"""A guard that probes, of an installed package; ``python installed_worker.py WHERE_IT_IS``."""

import sys
from pathlib import Path

import torch
from tiny import BanditPolicy

import passk_guard
from passk_guard import HeldOutPool, PassKGuard, PassKGuardConfig
from passk_guard.rollouts.verified_policy import VerifiedPolicy

assert Path(passk_guard.__file__).is_relative_to(sys.argv[1]), passk_guard.__file__
torch.manual_seed(0)
policy = BanditPolicy(32)
pool = HeldOutPool([{"prompt": str(i)} for i in range(32)])
config = PassKGuardConfig(k=2, reference_prompts=16)
guard = PassKGuard(VerifiedPolicy(policy, None), pool, config, isolation=policy.isolated)
guard.probe(0)
[look] = guard.history
assert look.alignment.z
print(0 < look.pass_at_1 < look.pass_at_k < 1)
