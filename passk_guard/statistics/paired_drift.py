"""How far pass@1 has moved on stored rollouts that are scored again: no generation.

The same rollouts under the old and the new weights cancel most of the sampling noise: the paired
change's standard error is several times smaller than that of two sampled levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from passk_guard.rollouts.group import RolloutGroup

__all__ = ["PairedChange", "paired_change"]

_EXTREME_RATIO = 5.0
_EXTREME_SHARE = 0.01
_EXACT_ABOVE = 0.5


@dataclass(frozen=True)
class PairedChange:
    """Change of pass@1 between two versions of the policy, on one batch of prompts.

    Attributes:
        change: estimate of ``J_1(now) - J_1(then)``.
        se: its standard error, from the spread over prompts.
        per_prompt: ``(m,)`` contributions, whose mean is ``change``.
        within: share of their variance that is sampling noise within prompts; the rest is that
            prompts change by different amounts.
        exact: whether the sequence ratio was used (else the estimate is first order in weights).
        effective_sample_size: of the sequence ratios, as a share of the rollouts.
        extreme: share of tokens whose ratio left [1/5, 5].
        usable: ``False`` when no prompt had a signal, or when the first-order form met more than
            1 % of extreme tokens.
    """

    change: float
    se: float
    per_prompt: Tensor = field(repr=False)
    within: float
    exact: bool
    effective_sample_size: float
    extreme: float
    usable: bool


def paired_change(
    groups: Sequence[RolloutGroup],
    before: Sequence[Tensor | None],
    after: Sequence[Tensor | None],
) -> PairedChange:
    """``mean_x 1/n Σ_j (r_j - r̄_{-j}) Σ_t (ρ_t - 1)``, with ρ the per-token ratio.

    The leave-one-out baseline keeps scoring noise from biasing the estimate. Where the sequence
    ratios' effective sample size is above 1/2 they take the place of ``Σ_t (ρ_t - 1)``: exact
    (importance sampling with a baseline), no longer first order. Nothing is clipped.

    Args:
        groups: ``m`` prompts with their rollouts, sampled under the old weights.
        before: ``(n, L)`` log-probs per prompt under the old weights; ``None`` where there is no
            signal, where the change is zero by construction.
        after: the same under the new weights.
    """
    exact = torch.zeros(len(groups), dtype=torch.float64)
    first_order = torch.zeros(len(groups), dtype=torch.float64)
    noise = torch.zeros(2, len(groups), dtype=torch.float64)
    ratios = []
    tokens = extreme = 0
    for i, (group, old, new) in enumerate(zip(groups, before, after, strict=True)):
        if old is None or new is None:
            continue
        mask = group.completion_mask.to("cpu").bool()
        shift = (new - old).double() * mask
        baseline = group.centred_success().double().cpu()
        sequence = shift.sum(-1).exp()
        for j, gain in enumerate((sequence - 1, shift.expm1().sum(-1))):
            terms = baseline * gain
            (exact, first_order)[j][i], noise[j, i] = terms.mean(), terms.var() / group.n
        ratios.append(sequence)
        tokens += int(mask.sum())
        extreme += int((shift.abs() > math.log(_EXTREME_RATIO)).sum())
    if not ratios:
        return PairedChange(0.0, 0.0, exact, 1.0, True, 1.0, 0.0, usable=False)
    ratio = torch.cat(ratios)
    ess = float(ratio.sum() ** 2 / (len(ratio) * (ratio**2).sum()))
    use_exact = ess > _EXACT_ABOVE
    values = exact if use_exact else first_order
    spread = float(values.var())
    within = float(noise[0 if use_exact else 1].mean()) / spread if spread > 0 else 1.0
    share = extreme / max(tokens, 1)
    return PairedChange(
        change=float(values.mean()),
        se=float(values.std() / math.sqrt(len(values))),
        per_prompt=values,
        within=min(within, 1.0),
        exact=use_exact,
        effective_sample_size=ess,
        extreme=share,
        usable=(use_exact or share <= _EXTREME_SHARE) and bool(values.isfinite().all()),
    )
