"""Advantages for pass@1 and pass@k, from the rewards of a group of rollouts: pure functions.

All take ``(groups, n)`` rewards of any float dtype on any device, NaN marking an unscorable
rollout, and give ``(groups, n)`` advantages of the same dtype: 0 for unscorable rollouts and for
groups with too few scorable ones. One sort and cumulative sums, O(n log n) per group.

Where a function is unbiased, it is in this sense: the *mean* over a group of ``A_j ∇log π(y_j)``
has the objective's gradient as its expectation.
"""

from __future__ import annotations

import torch
from torch import Tensor


def leave_one_out_advantages(rewards: Tensor) -> Tensor:
    """``A_1 = r_j - r̄_{-j}``: each reward less the mean of the others in its group.

    Args:
        rewards: ``(groups, n)``, NaN unscorable.

    Returns:
        ``(groups, n)``, 0 where unscorable or alone.
    """
    _check(rewards, 1)
    valid = ~rewards.isnan()
    r = rewards.nan_to_num(0.0)
    count = valid.sum(-1, keepdim=True).to(rewards)
    mean = r.sum(-1, keepdim=True) / count.clamp(min=1)
    return torch.where(valid, (r - mean) * (count / (count - 1).clamp(min=1)), 0.0)


def pkpo_advantages(rewards: Tensor, k: int) -> Tensor:
    """Leave-one-out-minus-one advantages of PKPO (Walder & Karkhanis 2025, ``sloo_minus_one``).

    What rollout j adds to the best of a k-subset, over all k-subsets that hold it:
    ``A_j = n / C(n,k) Σ_{I∋j, |I|=k} (max_I r - max_{I\\j} r)``, for binary and continuous rewards;
    unbiased for ``∇J_k`` (with the factor n for means; the paper has sums). Sorted upwards, j adds
    ``Σ_{l≤j} (r_l - r_{l-1}) C(l-1, k-1)``: all terms positive. For k = 1, where the subset
    without j is empty, the leave-one-out baseline takes its place.

    Args:
        rewards: ``(groups, n)``.
        k: tries, at most n.

    Raises:
        ValueError: ``rewards`` is not ``(groups, n)``, or ``k > n``.
    """
    _check(rewards, k)
    if k == 1:
        return leave_one_out_advantages(rewards)
    ordered = _Ordered(rewards)
    # n C(l-1, k-1) / C(n, k) = k C(l-1, k-1) / C(n-1, k-1)
    share = k * ordered.ratio(below=0, of=1, k=k - 1)
    values = ordered.values
    steps = torch.diff(values, dim=-1, prepend=values[:, :1])
    return ordered.restore(torch.cumsum(steps * share, -1), at_least=k)


def analytic_advantages(rewards: Tensor, k: int) -> Tensor:
    """Analytic pass@k advantages of Chen et al. 2025 (arXiv 2508.10751), for any rewards.

    With the best of each k-subset as that subset's reward, its standardised value
    ``(max_I r - R̄) / σ`` over all k-subsets, averaged over the subsets that hold rollout j. For
    binary rewards ``(1 - R̄) / σ`` where right and ``(1 - R̄ - C(n_wrong-1, k-1) / C(n-1, k-1)) / σ``
    where wrong, the paper's equations. The division by σ makes every group count alike: the
    direction of ∇J_k within a prompt, not its length. 0 where all subsets are worth the same.

    Args:
        rewards: ``(groups, n)``.
        k: tries, at most n.

    Raises:
        ValueError: as in :func:`pkpo_advantages`.
    """
    _check(rewards, k)
    ordered = _Ordered(rewards)
    r = ordered.values
    # Chance that a k-subset's best is the l-th: C(l-1, k-1) / C(n, k).
    best = ordered.ratio(below=0, of=1, k=k - 1) * (k / ordered.count)
    mean = (r * best).sum(-1, keepdim=True)
    deviation = (((r - mean) ** 2 * best).sum(-1, keepdim=True)).sqrt()
    # Given that it holds j: j itself, or some l above it that is best of the other k-1.
    own = r * ordered.ratio(below=0, of=1, k=k - 1)
    if k > 1:
        # C(l-2, k-2) / C(n-1, k-1) = (k-1)/(n-1) C(l-2, k-2) / C(n-2, k-2)
        share = ordered.ratio(below=1, of=2, k=k - 2) * (k - 1) / (ordered.count - 1).clamp(min=1)
        above = r * torch.where(ordered.position >= 1, share, 0.0)
        own = own + above.flip(-1).cumsum(-1).flip(-1) - above
    noise = 1e-6 * r.abs().amax(-1, keepdim=True)
    advantages = torch.where(deviation > noise, (own - mean) / deviation.clamp(min=1e-30), 0.0)
    return ordered.restore(advantages, at_least=max(k, 2))


def best_minus_second_advantages(rewards: Tensor, k: int | None = None) -> Tensor:
    """``n (r_best - r_second)`` for the best rollout, 0 for all others: PKPO at k = n.

    The only k that it serves is the group's own size: :class:`~passk_guard.PassKObjective` takes
    ``k`` for the guard's sake, this function ignores it. verl's ``GRPO_PASSK`` is this without
    the factor n; a binary group with two or more right rollouts has no signal.

    Args:
        rewards: ``(groups, n)``.
        k: not used.
    """
    _check(rewards, 1)
    filled = rewards.nan_to_num(nan=-torch.inf)
    top = filled.topk(min(2, rewards.shape[-1]), -1)
    count = (~rewards.isnan()).sum(-1, keepdim=True)
    lead = (top.values[:, :1] - top.values[:, -1:]) * count
    lead = torch.where(count >= 2, lead, 0.0).to(rewards.dtype)
    return torch.zeros_like(rewards).scatter_(-1, top.indices[:, :1], lead)


def maxrl_advantages(rewards: Tensor, k: int | None = None) -> Tensor:
    """``(r_j - r̄) / r̄``: maximum-likelihood RL (Tajwar et al. 2026), 0 where nothing is right.

    Unbiased for ``Σ_{i=1}^{n-1} ∇J_i / i``, the expansion of ``∇ E[log p]`` up to order n - 1: it
    blends all pass@k at once. ``k`` plays no part. Rewards are not negative.

    Args:
        rewards: ``(groups, n)``, at least 0.
        k: not used.

    Raises:
        ValueError: a reward is negative.
    """
    _check(rewards, 1)
    if bool((rewards.nan_to_num(0.0) < 0).any()):
        raise ValueError(
            "estimator='maxrl' divides by the mean reward: rewards must be at least 0."
        )
    mean = rewards.nanmean(-1, keepdim=True)
    return torch.where(mean > 0, (rewards - mean) / mean, 0.0).nan_to_num(nan=0.0)


class _Ordered:
    """Rewards in ascending order, unscorable ones last and counting for nothing."""

    def __init__(self, rewards: Tensor) -> None:
        self._rewards = rewards
        wide = torch.promote_types(rewards.dtype, torch.float32)
        self._valid = ~rewards.isnan()
        self.count = self._valid.sum(-1, keepdim=True).to(wide)
        values, self._order = rewards.to(wide).nan_to_num(nan=torch.inf).sort(-1)
        self.position = torch.arange(rewards.shape[-1], device=rewards.device, dtype=wide)
        # An unscorable rollout repeats the best, so that it adds no step; its share is masked.
        best = values.masked_fill(values.isinf(), -torch.inf).amax(-1, keepdim=True)
        self.scorable = self.position < self.count
        self.values = torch.where(self.scorable, values, best.clamp(min=-1e30))

    def ratio(self, *, below: int, of: int, k: int) -> Tensor:
        """``C(l - 1 - below, k) / C(n - of, k)`` at the l-th place; 0 where a set is too small."""
        # In logarithms nothing overflows; MPS has no float64.
        where = torch.device("cpu") if self.values.device.type == "mps" else self.values.device
        top = self.position.to(where, torch.float64) - below
        bottom = self.count.to(where, torch.float64) - of
        logs = _log_falling(top, k) - _log_falling(bottom, k)
        share = torch.where((top >= k) & (bottom >= k), logs.exp(), 0.0).to(self.values)
        return torch.where(self.scorable, share, 0.0)

    def restore(self, ordered: Tensor, *, at_least: int) -> Tensor:
        """Back in the order and dtype of the rewards."""
        values = torch.empty_like(ordered).scatter_(-1, self._order, ordered)
        kept = self._valid & (self.count >= at_least)
        return torch.where(kept, values, 0.0).to(self._rewards.dtype)


def _log_falling(a: Tensor, k: int) -> Tensor:
    """``log(a! / (a-k)!)``, for a >= k."""
    return (a + 1).clamp(min=1).lgamma() - (a - k + 1).clamp(min=1).lgamma()


def _check(rewards: Tensor, k: int) -> None:
    if rewards.ndim != 2 or not rewards.is_floating_point():
        raise ValueError(
            f"rewards must be a floating (groups, n) tensor, got {rewards.dtype} of shape "
            f"{tuple(rewards.shape)}."
        )
    if not 1 <= k <= rewards.shape[-1]:
        raise ValueError(
            f"k={k} needs groups of at least {k} rollouts, got {rewards.shape[-1]}. "
            "Lower k or raise num_generations."
        )
