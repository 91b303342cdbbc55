"""Two policies that are close, on the same rollouts: far less noise than two samples have.

Rollouts of A, scored under A and under B, give the change of pass@1 by importance sampling with a
baseline (:mod:`passk_guard.statistics.paired_drift`): the luck of the draw is in both. That holds
as far as B gives weight to what A says. Two figures tell whether it does: the effective sample size
of the ratios, and their mean, which is 1 where A has said everything that B would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from passk_guard.rollouts.group import RolloutGroup
from passk_guard.statistics.interval import Z95
from passk_guard.statistics.paired_drift import paired_change

__all__ = ["CommonRollouts", "common_rollouts"]

_SURE = 3.0
_MASS = 0.05


@dataclass(frozen=True)
class CommonRollouts:
    """Change of pass@1 from A to B, on A's rollouts.

    Attributes:
        change: of pass@1.
        se: its standard error, over prompts.
        low, high: its 95 % interval.
        effective_sample_size: of the ratios, as a share of the rollouts.
        mass: mean ratio; 1 where A's rollouts cover what B says.
        mass_se: its standard error.
        prompts: that it rests on.
        allowed: whether all this says anything of B.
        why_not: if not.
    """

    change: float
    se: float
    low: float
    high: float
    effective_sample_size: float
    mass: float
    mass_se: float
    prompts: int
    allowed: bool
    why_not: str


def common_rollouts(
    groups: Sequence[RolloutGroup],
    under_a: Sequence[Tensor | None],
    under_b: Sequence[Tensor | None],
) -> CommonRollouts:
    """Change of pass@1 on rollouts that A has sampled.

    Args:
        groups: ``m`` prompts, sampled by A.
        under_a: ``(n, L)`` log-probs per prompt under A; ``None`` where there is no signal.
        under_b: the same under B.
    """
    found = paired_change(groups, under_a, under_b)
    ratios = [
        ((b - a).double() * group.completion_mask.cpu().bool()).sum(-1).exp()
        for group, a, b in zip(groups, under_a, under_b, strict=True)
        if a is not None and b is not None
    ]
    means = torch.stack([ratio.mean() for ratio in ratios]) if ratios else torch.ones(1)
    mass = float(means.mean())
    mass_se = float(means.std() / math.sqrt(len(means))) if len(means) > 1 else 0.0
    why_not = ""
    if not ratios:
        why_not = "no prompt was solved sometimes but not always"
    elif not found.exact:
        why_not = (
            "the two are too far apart: of each 100 rollouts about "
            f"{100 * found.effective_sample_size:.0f} count"
        )
    elif not abs(mass - 1) <= max(_MASS, _SURE * mass_se):
        why_not = (
            f"the second one says things that the first one never said: {mass:.0%} of what it "
            "says was seen"
        )
    return CommonRollouts(
        change=found.change,
        se=found.se,
        low=found.change - Z95 * found.se,
        high=found.change + Z95 * found.se,
        effective_sample_size=found.effective_sample_size,
        mass=mass,
        mass_se=mass_se,
        prompts=len(groups),
        allowed=not why_not,
        why_not=why_not,
    )
