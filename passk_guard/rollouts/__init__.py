"""Sampling, verifying and scoring rollouts of held-out prompts."""

from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.hf_policy import HFPolicy
from passk_guard.rollouts.policy import Policy
from passk_guard.rollouts.verified_policy import VerifiedPolicy

__all__ = ["HFPolicy", "Policy", "RolloutGroup", "VerifiedPolicy"]
