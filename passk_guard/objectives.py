"""Pass@k objectives: rewards of a group of rollouts in, advantages out, with k and λ live."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["ESTIMATORS", "PassKObjective", "leave_one_out_advantages", "pkpo_advantages"]


class PassKObjective:
    """``(1-λ) A_k + λ A_1`` on the same rollouts, with ``k`` and ``pass1_weight = λ`` live.

    The mean over a group of ``A_j ∇log π(y_j)`` is an unbiased estimate of
    ``(1-λ) ∇J_k + λ ∇J_1``.

    Args:
        k: tries of the pass@k objective; may be set at any time.
        pass1_weight: λ in [0, 1]; may be set at any time.
        estimator: ``"pkpo"``.

    >>> import torch
    >>> objective = PassKObjective(k=2)
    >>> objective(torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]])).round(decimals=2)
    tensor([[2.0000, 0.0000, 0.0000, 0.0000],
            [0.6700, 0.6700, 0.6700, 0.0000]])
    """

    def __init__(self, k: int, pass1_weight: float = 0.0, estimator: str = "pkpo") -> None:
        if estimator not in ESTIMATORS:
            raise ValueError(
                f"estimator={estimator!r} is not known. Choose one of: {', '.join(ESTIMATORS)}."
            )
        self.estimator = estimator
        self.k = k
        self.pass1_weight = pass1_weight

    @property
    def k(self) -> int:
        """Tries."""
        return self._k

    @k.setter
    def k(self, k: int) -> None:
        if isinstance(k, bool) or int(k) != k or k < 1:
            raise ValueError(f"k must be a whole number of tries, at least 1, got {k!r}.")
        self._k = int(k)

    @property
    def pass1_weight(self) -> float:
        """λ, the share of the pass@1 objective."""
        return self._pass1_weight

    @pass1_weight.setter
    def pass1_weight(self, weight: float) -> None:
        if not 0.0 <= weight <= 1.0:
            raise ValueError(f"pass1_weight must lie in [0, 1], got {weight!r}.")
        self._pass1_weight = float(weight)

    def __call__(self, rewards: Tensor) -> Tensor:
        """Advantages of ``(groups, n)`` rewards; NaN marks an unscorable rollout, which gets 0."""
        if self.pass1_weight == 1.0:
            return leave_one_out_advantages(rewards)
        passk = ESTIMATORS[self.estimator](rewards, self.k)
        if self.pass1_weight == 0.0:
            return passk
        pass1 = leave_one_out_advantages(rewards)
        return (1 - self.pass1_weight) * passk + self.pass1_weight * pass1


def leave_one_out_advantages(rewards: Tensor) -> Tensor:
    """``A_1 = r_j - r̄_{-j}``: each reward less the mean of the others in its group.

    Args:
        rewards: ``(groups, n)``, NaN unscorable.

    Returns:
        ``(groups, n)``, 0 where unscorable or alone.
    """
    _check_rewards(rewards)
    valid = ~rewards.isnan()
    r = rewards.nan_to_num(0.0)
    count = valid.sum(-1, keepdim=True).to(rewards)
    mean = r.sum(-1, keepdim=True) / count.clamp(min=1)
    return torch.where(valid, (r - mean) * (count / (count - 1).clamp(min=1)), 0.0)


def pkpo_advantages(rewards: Tensor, k: int) -> Tensor:
    """Leave-one-out-minus-one advantages of PKPO (Walder & Karkhanis 2025, ``sloo_minus_one``).

    What rollout j adds to the best of a k-subset, over all k-subsets that hold it:
    ``A_j = n / C(n,k) Σ_{I∋j, |I|=k} (max_I r - max_{I\\j} r)``, for binary and continuous rewards.
    With the factor n, the *mean* over the group estimates ``∇J_k`` (the paper's sums). Sorted
    upwards, j adds ``Σ_{l≤j} (r_l - r_{l-1}) C(l-1, k-1)``, so one sort and one cumulative sum do:
    O(n log n), all terms positive. For k = 1, where the subset without j is empty, the
    leave-one-out baseline takes its place.

    Args:
        rewards: ``(groups, n)``, any float dtype; NaN marks an unscorable rollout.
        k: tries, at most n.

    Returns:
        ``(groups, n)``, of the rewards' dtype. 0 for unscorable rollouts, and for groups with
        fewer than k scorable ones.

    Raises:
        ValueError: ``rewards`` is not ``(groups, n)``, or ``k > n``.
    """
    _check_rewards(rewards)
    if not 1 <= k <= rewards.shape[-1]:
        raise ValueError(
            f"k={k} needs groups of at least {k} rollouts, got {rewards.shape[-1]}. "
            "Lower k or raise num_generations."
        )
    if k == 1:
        return leave_one_out_advantages(rewards)
    wide = torch.promote_types(rewards.dtype, torch.float32)
    valid = ~rewards.isnan()
    count = valid.sum(-1, keepdim=True).to(wide)
    ordered, order = rewards.to(wide).nan_to_num(nan=torch.inf).sort(-1)
    below = torch.arange(rewards.shape[-1], device=rewards.device, dtype=wide)  # l - 1
    # n C(l-1, k-1) / C(n, k) = k C(l-1, k-1) / C(n-1, k-1)
    share = torch.full_like(ordered, float(k))
    for j in range(k - 1):
        share = share * ((below - j).clamp(min=0) / (count - 1 - j).clamp(min=1))
    steps = torch.diff(ordered, dim=-1, prepend=ordered[:, :1]).nan_to_num(nan=0.0, posinf=0.0)
    added = torch.cumsum(steps * share, -1)
    advantages = torch.empty_like(added).scatter_(-1, order, added)
    return torch.where(valid & (count >= k), advantages, 0.0).to(rewards.dtype)


def _check_rewards(rewards: Tensor) -> None:
    if rewards.ndim != 2 or not rewards.is_floating_point():
        raise ValueError(
            f"rewards must be a floating (groups, n) tensor, got {rewards.dtype} of shape "
            f"{tuple(rewards.shape)}."
        )


ESTIMATORS: dict[str, Callable[[Tensor, int], Tensor]] = {"pkpo": pkpo_advantages}
