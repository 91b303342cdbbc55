"""Ways from rewards to pass@k advantages, in a registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from passk_guard.objectives.advantages import (
    analytic_advantages,
    best_minus_second_advantages,
    maxrl_advantages,
    pkpo_advantages,
)

__all__ = ["ESTIMATORS", "Estimator"]


@dataclass(frozen=True)
class Estimator:
    """A way from rewards to pass@k advantages.

    Attributes:
        advantages: ``f(rewards, k)``, see :mod:`passk_guard.objectives.advantages`.
        least_group: the smallest group, by k, in which it can tell one rollout from another; in a
            smaller one every advantage is 0.
        has_k: whether k plays a part.
    """

    advantages: Callable[[Tensor, int], Tensor]
    least_group: Callable[[int], int]
    has_k: bool = True


ESTIMATORS: dict[str, Estimator] = {
    "pkpo": Estimator(pkpo_advantages, lambda k: max(k, 2)),
    # The best of the only k-subset of k rollouts is worth as much as the mean over subsets.
    "analytic": Estimator(analytic_advantages, lambda k: k + 1),
    "best_minus_second": Estimator(best_minus_second_advantages, lambda k: 2, has_k=False),
    "maxrl": Estimator(maxrl_advantages, lambda k: 2, has_k=False),
}
