"""How far pass@1 has moved on stored rollouts that are scored again: no generation.

The same rollouts under the old and the new weights cancel most of the sampling noise: the paired
change's standard error is several times smaller than that of two sampled levels.

With ρ the ratio of a rollout's probability now and then, ``(r - b)(ρ - 1)`` has the mean Δp of its
prompt for any b that does not depend on the rollout. The policy gradient's own choice, b = p, is
the worst where a prompt is nearly always right: a loss shows as rare wrong answers that become
many times likelier, which n rollouts hold seldom, and all-right rollouts say nothing. With b near
0 it shows as right answers that become a little less likely, which all of them hold. Where right
and wrong are one answer each, b = 1 - p has no variance at all, whatever p; where most answers are
wrong, and each in its own way, b = p is the better one again. So b = min(p, 1 - p), p being the
share of right ones among the prompt's *other* rollouts.

Sampling and scoring round differently, and the score of a long rollout in half precision is off by
some tenths of a nat. The old score is the denominator of ρ, so its noise does not average out: the
mean ratio of rollouts that were not drawn from what is scored is above 1. With w = π/μ, of the
old score and of what was sampled from (``RolloutGroup.sampling_log_probs``), ``w (ρ - 1)`` has the
mean 0 under μ for *any* scores, and ``(r - b) w (ρ - 1)`` the mean Δp. Unbiased is not sharp, and
where p is near 1 the noise counts in full: if it is large, the effective sample size of w below .9,
or if nobody told what was sampled from, b = p. Right and wrong rollouts then share it, and it
cancels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from passk_guard.passk import unbiased_prompt_weight
from passk_guard.rollouts.group import RolloutGroup

__all__ = ["PairedChange", "paired_change"]

_EXTREME_RATIO = 5.0
_EXTREME_SHARE = 0.01
_EXACT_ABOVE = 0.5
_SAME = 0.9  # effective sample size of w


@dataclass(frozen=True)
class PairedChange:
    """Change of pass@1 between two versions of the policy, on one batch of prompts.

    Attributes:
        change: estimate of ``J_1(now) - J_1(then)``.
        se: its standard error, from the spread over prompts.
        per_prompt: ``(m,)`` contributions, whose mean is ``change``.
        per_prompt_at_k: ``(m,)`` the same of pass@k, first order in each prompt's Δp.
        baseline: ``(m,)`` mean b of each prompt's rollouts.
        seen: ``(m,)`` share of what the new weights say of a prompt that its rollouts cover: mean
            ratio, 1 but for noise where they cover all.
        within: share of their variance that is sampling noise within prompts; the rest is that
            prompts change by different amounts.
        exact: whether the sequence ratio was used (else the estimate is first order in weights).
        effective_sample_size: of the sequence ratios, as a share of the rollouts.
        extreme: share of tokens whose ratio left [1/5, 5].
        usable: ``False`` when nothing was ever right, or when the first-order form met more than
            1 % of extreme tokens.
    """

    change: float
    se: float
    per_prompt: Tensor = field(repr=False)
    per_prompt_at_k: Tensor = field(repr=False)
    baseline: Tensor = field(repr=False)
    seen: Tensor = field(repr=False)
    within: float
    exact: bool
    effective_sample_size: float
    extreme: float
    usable: bool


def paired_change(
    groups: Sequence[RolloutGroup],
    before: Sequence[Tensor | None],
    after: Sequence[Tensor | None],
    k: int = 1,
) -> PairedChange:
    """``mean_x 1/n Σ_j (r_j - b_j) Σ_t w_t (ρ_t - 1)``, with w and ρ ratios of a token.

    Where the sequence ratios' effective sample size is above 1/2, ``w (ρ - 1)`` of whole rollouts
    takes the place of the sum: exact (importance sampling with a baseline), no longer first order.
    Nothing is clipped.

    For pass@k each rollout counts with an estimate of ``w_k(p)`` from the others: the product is
    unbiased for ``w_k(p) Δp``.

    Args:
        groups: ``m`` prompts with their rollouts, sampled under the old weights.
        before: ``(n, L)`` log-probs per prompt under the old weights; ``None`` where no rollout is
            right, where the estimate is zero by construction.
        after: the same under the new weights.
        k: of ``per_prompt_at_k``; lower where a prompt has fewer rollouts.
    """
    m = len(groups)
    values = torch.zeros(2, 2, m, dtype=torch.float64)  # exact or first order; pass@1 or pass@k
    noise = torch.zeros(2, m, dtype=torch.float64)
    baseline, seen = torch.zeros(m, dtype=torch.float64), torch.ones(m, dtype=torch.float64)
    ratios = []
    tokens = extreme = 0
    log_weights = _log_weights(groups, before)
    for i, (group, old, new) in enumerate(zip(groups, before, after, strict=True)):
        if old is None or new is None:
            continue
        mask = group.completion_mask.to("cpu").bool()
        shift = (new - old).double() * mask
        success = group.success.double().cpu()
        others = success.sum() - success
        told = log_weights[i]
        b = _baseline(others, group.n - 1, told is not None)
        baseline[i] = b.mean()
        weights = torch.zeros_like(shift) if told is None else told
        # k C(N-c, k-1) / C(N, k-1), of N = n - 1 others of which c are right.
        weight = unbiased_prompt_weight(others + 1, group.n + 1, min(k, group.n - 1))
        sequence = shift.sum(-1).exp()
        whole = weights.sum(-1).exp() * (sequence - 1)
        seen[i] = 1 + whole.mean()
        for j, gain in enumerate((whole, (weights.exp() * shift.expm1()).sum(-1))):
            terms = (success - b) * gain
            values[j, 0, i] = terms.mean()
            values[j, 1, i] = (terms * torch.as_tensor(weight)).mean()
            noise[j, i] = _noise(success, gain, told is not None)
        ratios.append(sequence)
        tokens += int(mask.sum())
        extreme += int((shift.abs() > math.log(_EXTREME_RATIO)).sum())
    if not ratios:
        one, at_k = values[0]
        return PairedChange(0.0, 0.0, one, at_k, baseline, seen, 1.0, True, 1.0, 0.0, usable=False)
    ess = _effective(torch.cat(ratios).log())
    use_exact = ess > _EXACT_ABOVE
    one, at_k = values[0 if use_exact else 1]
    spread = float(one.var())
    within = float(noise[0 if use_exact else 1].mean()) / spread if spread > 0 else 1.0
    share_extreme = extreme / max(tokens, 1)
    return PairedChange(
        change=float(one.mean()),
        se=float(one.std() / math.sqrt(m)),
        per_prompt=one,
        per_prompt_at_k=at_k,
        baseline=baseline,
        seen=seen,
        within=min(within, 1.0),
        exact=use_exact,
        effective_sample_size=ess,
        extreme=share_extreme,
        usable=(use_exact or share_extreme <= _EXTREME_SHARE) and bool(one.isfinite().all()),
    )


def _log_weights(
    groups: Sequence[RolloutGroup], before: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """``(n, L)`` log w of each prompt's tokens, ``None`` where they are not known.

    Nor where what was sampled from is far from what is scored.
    """
    found: list[Tensor | None] = []
    for group, old in zip(groups, before, strict=True):
        told = group.told
        if told is None or old is None:
            found.append(None)
            continue
        weights = old.double() - told.double().cpu()
        found.append(weights.where(group.completion_mask.cpu().bool(), 0.0))
    known = [weights.sum(-1) for weights in found if weights is not None]
    return found if known and _effective(torch.cat(known)) > _SAME else [None] * len(found)


def _effective(log_ratios: Tensor) -> float:
    """Effective sample size, as a share."""
    ratios = (log_ratios - log_ratios.max()).exp()
    return float(ratios.sum() ** 2 / (len(ratios) * (ratios**2).sum()))


def _baseline(right: Tensor, others: int, told: bool) -> Tensor:
    """``min(p, 1 - p)``, of those ``right`` among so many ``others``; p where w is not known."""
    share = right / others
    return torch.minimum(share, 1 - share) if told else share


def _noise(success: Tensor, gain: Tensor, told: bool) -> Tensor:
    """Variance of a prompt's mean over draws of its rollouts, by the jackknife."""
    n = len(success)
    if n < 3:
        return ((success - success.flip(0)) * gain).var() / n
    without = success.sum() - success - success[:, None]  # j's others, without the l-th: [l, j]
    terms = (success - _baseline(without, n - 2, told)) * gain
    means = (terms.sum(1) - terms.diagonal()) / (n - 1)
    return (n - 1) / n * (means - means.mean()).square().sum()
