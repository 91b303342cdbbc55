"""passk-guard: know when optimising pass@k is costing you pass@1."""

from passk_guard.checkpoints.compare import compare
from passk_guard.checkpoints.comparison import Comparison
from passk_guard.checkpoints.probe_policy import PolicyProbe, probe_policy
from passk_guard.config import PassKGuardConfig
from passk_guard.counts import Counts, read_counts
from passk_guard.detection.alarm import Alarm
from passk_guard.errors import PassKGuardWarning, ProbeError
from passk_guard.guard import PassKGuard
from passk_guard.look import Failure, Probe
from passk_guard.objectives.passk_objective import PassKObjective
from passk_guard.passk import pass_at_k, prompt_weight, unbiased_prompt_weight, weight_threshold
from passk_guard.prompts.pool import HeldOutPool
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.hf_policy import HFPolicy
from passk_guard.rollouts.policy import Policy
from passk_guard.statistics.alignment import (
    Alignment,
    alignment_curve,
    estimate_alignment,
    weighted_alignment,
)
from passk_guard.version import __version__ as __version__

__all__ = [
    "Alarm",
    "Alignment",
    "Comparison",
    "Counts",
    "Failure",
    "HFPolicy",
    "HeldOutPool",
    "PassKGuard",
    "PassKGuardConfig",
    "PassKGuardWarning",
    "PassKObjective",
    "Policy",
    "PolicyProbe",
    "Probe",
    "ProbeError",
    "RolloutGroup",
    "alignment_curve",
    "compare",
    "estimate_alignment",
    "pass_at_k",
    "probe_policy",
    "prompt_weight",
    "read_counts",
    "unbiased_prompt_weight",
    "weight_threshold",
    "weighted_alignment",
]
