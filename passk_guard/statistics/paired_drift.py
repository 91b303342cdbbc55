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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from passk_guard.passk import unbiased_prompt_weight
from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.group import RolloutGroup, one_width
from passk_guard.rollouts.scores import packs

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
    zeros = torch.zeros(2, 2, m, dtype=torch.float64, device="cpu")
    values, noise = zeros.clone(), zeros[0].clone()  # exact or first order; pass@1 or pass@k
    baseline, seen = zeros[0, 0].clone(), zeros[0, 0] + 1
    pairs = list(zip(groups, before, after, strict=True))
    scored = {i: (g, a, b) for i, (g, a, b) in enumerate(pairs) if a is not None and b is not None}
    if not scored:
        one, at_k = values[0]
        return PairedChange(0.0, 0.0, one, at_k, baseline, seen, 1.0, True, 1.0, 0.0, usable=False)
    moved = _moved(list(scored.values()))
    for n, told, at, which in _alike([g for g, _, _ in scored.values()], moved.log_w):
        prompts = torch.tensor(list(scored), device="cpu")[at]
        success = torch.stack([groups[i].success.double().cpu() for i in prompts.tolist()])
        others = success.sum(1, keepdim=True) - success
        b = _baseline(others, n - 1, told)
        baseline[prompts] = b.mean(1)
        # k C(N-c, k-1) / C(N, k-1), of N = n - 1 others of which c are right.
        weight = unbiased_prompt_weight(others + 1, n + 1, min(k, n - 1))
        whole = moved.log_ratio[which].expm1()
        if told:
            whole = moved.log_w[which].exp() * whole
        seen[prompts] = 1 + whole.mean(1)
        first_order = (moved.weighted if told else moved.plain)[which]
        for j, gain in enumerate((whole, first_order)):
            terms = (success - b) * gain
            values[j, 0, prompts] = terms.mean(1)
            values[j, 1, prompts] = (terms * weight).mean(1)
            noise[j, prompts] = _noise(success, gain, told)
    ess = _effective(moved.log_ratio)
    use_exact = ess > _EXACT_ABOVE
    one, at_k = values[0 if use_exact else 1]
    spread = float(one.var())
    within = float(noise[0 if use_exact else 1].mean()) / spread if spread > 0 else 1.0
    share_extreme = int(moved.extreme.sum()) / max(int(moved.tokens.sum()), 1)
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


class _Moved(NamedTuple):
    """What is left of the tokens of ``R`` rollouts, ``(R,)`` each."""

    log_ratio: Tensor  # log ρ of a rollout
    log_w: Tensor  # log w of a rollout, not finite where some token's is not known
    plain: Tensor  # Σ_t (ρ_t - 1)
    weighted: Tensor  # Σ_t w_t (ρ_t - 1)
    tokens: Tensor
    extreme: Tensor  # of them


def _moved(scored: Sequence[tuple[RolloutGroup, Tensor, Tensor]]) -> _Moved:
    """All prompts' rollouts, in their order; tokens are looked at pack by pack."""
    found = []
    for pack in packs([group for group, _, _ in scored], PassSize()):
        old, new, told, mask = map(
            one_width, zip(*(_tokens(*scored[i]) for i in pack), strict=True)
        )
        sampled = mask.bool()
        shift, log_w = (new - old).double() * sampled, old.double() - told.double()
        log_w = log_w.where(sampled, 0.0)
        gain = shift.expm1()
        extreme = (shift.abs() > math.log(_EXTREME_RATIO)).sum(-1)
        sums = (shift.sum(-1), log_w.sum(-1), gain.sum(-1), (log_w.exp() * gain).sum(-1))
        found.append((*sums, sampled.sum(-1), extreme))
    return _Moved(*map(torch.cat, zip(*found, strict=True)))


def _tokens(group: RolloutGroup, old: Tensor, new: Tensor) -> tuple[Tensor, ...]:
    """Log-probs then, now and as told (NaN if not), and the mask, ``(n, L)`` on the CPU."""
    told = group.sampling_log_probs
    told = torch.full_like(old, math.nan) if told is None else told.float()
    return old.cpu(), new.cpu(), told.cpu(), group.completion_mask.cpu()


def _alike(
    groups: Sequence[RolloutGroup], log_w: Tensor
) -> Iterator[tuple[int, bool, Tensor, Tensor]]:
    """Prompts that can be done at once: rollouts of each, whether w counts, and which they are.

    W is not known where nobody told, nor anywhere if what was sampled from is far from what is
    scored.

    Yields:
        ``n``, told, ``(b,)`` places of the prompts, ``(b, n)`` places of their rollouts.
    """
    sizes = torch.tensor([group.n for group in groups], device="cpu")
    first = sizes.cumsum(0) - sizes
    known = torch.stack([part.isfinite().all() for part in log_w.split(sizes.tolist())])
    of_known = log_w[known.repeat_interleave(sizes)]
    if not len(of_known) or not _effective(of_known) > _SAME:
        known = torch.zeros_like(known)
    for n in sizes.unique().tolist():
        for told in (False, True):
            at = ((sizes == n) & (known == told)).nonzero()[:, 0]
            if len(at):
                yield n, told, at, first[at, None] + torch.arange(n, device="cpu")


def _effective(log_ratios: Tensor) -> float:
    """Effective sample size, as a share."""
    ratios = (log_ratios - log_ratios.max()).exp()
    return float(ratios.sum() ** 2 / (len(ratios) * (ratios**2).sum()))


def _baseline(right: Tensor, others: int, told: bool) -> Tensor:
    """``min(p, 1 - p)``, of those ``right`` among so many ``others``; p where w is not known."""
    share = right / others
    return torch.minimum(share, 1 - share) if told else share


def _noise(success: Tensor, gain: Tensor, told: bool) -> Tensor:
    """``(b,)`` variance of each prompt's mean over draws of its rollouts, by the jackknife.

    Without the l-th rollout, the baseline of the j-th depends on l only by whether l is right:
    two sums over j serve all l.
    """
    n = success.shape[1]
    if n < 3:
        return ((success - success.flip(1)) * gain).var(1) / n
    others = success.sum(1, keepdim=True) - success
    if_wrong, if_right = (
        (success - _baseline(others - right, n - 2, told)) * gain for right in (0, 1)
    )
    sums = [terms.sum(1, keepdim=True) - terms for terms in (if_wrong, if_right)]
    means = torch.where(success.bool(), sums[1], sums[0]) / (n - 1)
    return (n - 1) / n * (means - means.mean(1, keepdim=True)).square().sum(1)
