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
share of right ones among the prompt's *other* rollouts: the others of its group, or those of
earlier looks (``RolloutGroup.baseline``).

Importance sampling is exact, and of use as long as the effective sample size is above one half.
Beyond, nothing is said: a look's own rollouts tell.

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

import torch
from torch import Tensor

from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.group import RolloutGroup, one_width
from passk_guard.rollouts.scores import packs

_USABLE = 0.5  # effective sample size
_SAME = 0.9  # effective sample size of w


@dataclass(frozen=True)
class PairedChange:
    """Change of pass@1 between two versions of the policy, on one batch of prompts.

    Attributes:
        per_prompt: ``(m,)`` estimate of each prompt's change.
        noise: ``(m,)`` sampling variance of that, over draws of the prompt's rollouts.
        covariance: ``(m,)`` with the prompt's share of right rollouts, over the same draws.
        baseline: ``(m,)`` mean b of each prompt's rollouts.
        seen: ``(m,)`` share of what the new weights say of a prompt that its rollouts cover: mean
            ratio, 1 but for noise where they cover all.
        effective_sample_size: of the sequence ratios, as a share of the rollouts; 0 where nothing
            was ever right, which says nothing of what may come.
    """

    per_prompt: Tensor = field(repr=False)
    noise: Tensor = field(repr=False)
    covariance: Tensor = field(repr=False)
    baseline: Tensor = field(repr=False)
    seen: Tensor = field(repr=False)
    effective_sample_size: float

    @property
    def change(self) -> float:
        """Estimate of ``J_1(now) - J_1(then)``."""
        return float(self.per_prompt.mean())

    @property
    def se(self) -> float:
        """Its standard error, over prompts."""
        return float(self.per_prompt.std() / math.sqrt(len(self.per_prompt)))

    @property
    def usable(self) -> bool:
        """Whether the rollouts still say enough of the new weights."""
        return self.effective_sample_size > _USABLE and bool(self.per_prompt.isfinite().all())


def paired_change(
    groups: Sequence[RolloutGroup],
    before: Sequence[Tensor | None],
    after: Sequence[Tensor | None],
) -> PairedChange:
    """``mean_x 1/n Σ_j (r_j - b_j) w_j (ρ_j - 1)``, importance sampling with a baseline.

    Nothing is clipped.

    Args:
        groups: ``m`` prompts with their rollouts, sampled under the old weights.
        before: ``(n, L)`` log-probs per prompt under the old weights; ``None`` where no rollout is
            right and none was before, where the estimate is zero by construction.
        after: the same under the new weights.
    """
    m = len(groups)
    zeros = torch.zeros(4, m, dtype=torch.float64, device="cpu")
    seen = zeros[0] + 1
    values, noise, covariance, baseline = zeros
    pairs = list(zip(groups, before, after, strict=True))
    scored = {i: (g, a, b) for i, (g, a, b) in enumerate(pairs) if a is not None and b is not None}
    if not scored:
        return PairedChange(values, noise, covariance, baseline, seen, 0.0)
    log_ratio, log_w = _moved(list(scored.values()))
    of_all = [g for g, _, _ in scored.values()]
    for n, told, earlier, at, which in _alike(of_all, log_w):
        prompts = torch.tensor(list(scored), device="cpu")[at]
        success = torch.stack([groups[i].success.double().cpu() for i in prompts.tolist()])
        gain = log_ratio[which].expm1()
        if told:
            gain = log_w[which].exp() * gain
        if earlier:
            shares = [groups[i].baseline or 0.0 for i in prompts.tolist()]
            share = torch.tensor(shares, dtype=torch.float64, device="cpu")[:, None]
            b = _baseline(share, told).expand_as(success)
        else:
            b = _baseline((success.sum(1, keepdim=True) - success) / (n - 1), told)
        terms = (success - b) * gain
        values[prompts], baseline[prompts] = terms.mean(1), b.mean(1)
        seen[prompts] = 1 + gain.mean(1)
        noise[prompts] = _spread(terms) if earlier else _noise(success, gain, told)
        centred = success - success.mean(1, keepdim=True)
        covariance[prompts] = (centred * terms).sum(1) / max(n * (n - 1), 1)
    return PairedChange(values, noise, covariance, baseline, seen, _effective(log_ratio))


def _spread(terms: Tensor) -> Tensor:
    """``(b,)`` variance of each prompt's mean; of a single rollout its square."""
    n = terms.shape[1]
    return terms.var(1) / n if n > 1 else terms[:, 0].square()


def _moved(scored: Sequence[tuple[RolloutGroup, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """``(R,)`` log ρ and log w of all prompts' rollouts, in their order, pack by pack.

    Log w is not finite where some token's is not known.
    """
    found = []
    for pack in packs([group for group, _, _ in scored], PassSize()):
        old, new, told, mask = map(
            one_width, zip(*(_tokens(*scored[i]) for i in pack), strict=True)
        )
        sampled = mask.bool()
        log_w = (old.double() - told.double()).where(sampled, 0.0)
        found.append((((new - old).double() * sampled).sum(-1), log_w.sum(-1)))
    log_ratio, log_w = map(torch.cat, zip(*found, strict=True))
    return log_ratio, log_w


def _tokens(group: RolloutGroup, old: Tensor, new: Tensor) -> tuple[Tensor, ...]:
    """Log-probs then, now and as told (NaN if not), and the mask, ``(n, L)`` on the CPU."""
    told = group.sampling_log_probs
    told = torch.full_like(old, math.nan) if told is None else told.float()
    return old.cpu(), new.cpu(), told.cpu(), group.completion_mask.cpu()


def _alike(
    groups: Sequence[RolloutGroup], log_w: Tensor
) -> Iterator[tuple[int, bool, bool, Tensor, Tensor]]:
    """Prompts that can be done at once.

    W is not known where nobody told, nor anywhere if what was sampled from is far from what is
    scored.

    Yields:
        ``n``, whether w counts, whether b is of earlier looks, ``(b,)`` places of the prompts,
        ``(b, n)`` places of their rollouts.
    """
    sizes = torch.tensor([group.n for group in groups], device="cpu")
    earlier = torch.tensor([group.baseline is not None for group in groups], device="cpu")
    first = sizes.cumsum(0) - sizes
    known = torch.stack([part.isfinite().all() for part in log_w.split(sizes.tolist())])
    of_known = log_w[known.repeat_interleave(sizes)]
    if not len(of_known) or not _effective(of_known) > _SAME:
        known = torch.zeros_like(known)
    for n in sizes.unique().tolist():
        for told in (False, True):
            for before in (False, True):
                at = ((sizes == n) & (known == told) & (earlier == before)).nonzero()[:, 0]
                if len(at):
                    yield n, told, before, at, first[at, None] + torch.arange(n, device="cpu")


def _effective(log_ratios: Tensor) -> float:
    """Effective sample size, as a share."""
    ratios = (log_ratios - log_ratios.max()).exp()
    return float(ratios.sum() ** 2 / (len(ratios) * (ratios**2).sum()))


def _baseline(share: Tensor, told: bool) -> Tensor:
    """``min(p, 1 - p)`` of other rollouts' share of right ones; p where w is not known."""
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
        (success - _baseline((others - right) / (n - 2), told)) * gain for right in (0, 1)
    )
    sums = [terms.sum(1, keepdim=True) - terms for terms in (if_wrong, if_right)]
    means = torch.where(success.bool(), sums[1], sums[0]) / (n - 1)
    return (n - 1) / n * (means - means.mean(1, keepdim=True)).square().sum(1)
