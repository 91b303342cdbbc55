"""Two policies that are close, on the same rollouts: far less noise than two samples have.

Rollouts of A, scored under A and under B, give the change of pass@1 by importance sampling with a
baseline (:mod:`passk_guard.statistics.paired_drift`): the luck of the draw is in both. That holds
as far as B gives weight to what A says. Two figures tell whether it does: the effective sample size
of the ratios, and their mean, which is 1 where A has said everything that B would.

Prompts on which A is always right, or never, count in both figures: A's rollouts cannot show what
B does there instead, only that B would not say them. Whatever B says that A never said may be right
or wrong: the lower end takes all of it for wrong, the upper end for right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from passk_guard.rollouts.group import RolloutGroup
from passk_guard.statistics.mean_interval import mean_interval
from passk_guard.statistics.paired_drift import PairedChange, paired_change

_FEWEST = 200  # prompts: of a kind that is rarer than 2 in 100 there may be none among fewer
_SURE = 3.0
_MASS = 0.05


@dataclass(frozen=True)
class CommonRollouts:
    """Change of pass@1 from A to B, on A's rollouts.

    Attributes:
        change: of pass@1.
        se: its standard error, over prompts.
        low, high: its 95 % interval, which allows for what A never said.
        effective_sample_size: of the ratios, as a share of the rollouts.
        mass: mean ratio; 1 where A's rollouts cover what B says.
        mass_se: its standard error, over prompts.
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
    under_a: Sequence[Tensor],
    under_b: Sequence[Tensor],
) -> CommonRollouts:
    """Change of pass@1 on rollouts that A has sampled.

    Args:
        groups: ``m`` prompts, sampled by A.
        under_a: ``(n, L)`` log-probs per prompt under A, also where there is no signal.
        under_b: the same under B.
    """
    few = f"they take {_FEWEST} prompts with two verdicts or more, and there are {len(groups)}"
    if len(groups) < 2:
        return CommonRollouts(0.0, 0.0, -1.0, 1.0, 1.0, 1.0, 0.0, len(groups), False, few)
    found = paired_change(groups, under_a, under_b)
    mass, mass_se = float(found.seen.mean()), float(found.seen.std() / math.sqrt(len(groups)))
    low, high = _interval(found)
    why_not = ""
    if len(groups) < _FEWEST:
        why_not = few
    elif not any(group.has_signal for group in groups):
        why_not = "no prompt was solved sometimes but not always"
    elif not found.usable:
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
        low=low,
        high=high,
        effective_sample_size=found.effective_sample_size,
        mass=mass,
        mass_se=mass_se,
        prompts=len(groups),
        allowed=not why_not,
        why_not=why_not,
    )


def _interval(found: PairedChange) -> tuple[float, float]:
    """Around the change as it is, and as it would be if all that A never said were wrong, or right.

    With ``ρ̄_i`` the mean ratio of a prompt, B says the share ``1 - ρ̄_i`` more, or less, beyond A's
    rollouts. The baseline ``b_i`` took it for right so often; wrong, it is worth ``b_i`` less, and
    right ``1 - b_i`` more.
    """
    change, beyond = found.per_prompt, 1 - found.seen
    worst, best = change - found.baseline * beyond, change + (1 - found.baseline) * beyond
    # The change of a prompt lies within these bounds, which its estimate may leave by a little.
    ends = [
        mean_interval(values.clamp(-1, 1).numpy(), -1.0, 1.0) for values in (change, worst, best)
    ]
    return min(low for low, _ in ends), max(high for _, high in ends)
