"""Pass@k objectives: rewards of a group of rollouts in, advantages out, with k and λ live."""

from __future__ import annotations

from passk_guard.objectives.mixes import AnchorMix, TrainerMix
from passk_guard.objectives.passk_objective import PassKObjective

__all__ = ["LiveObjective"]


LiveObjective = PassKObjective | TrainerMix | AnchorMix
