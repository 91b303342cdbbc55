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
from passk_guard.objectives.training_weight import TrainingGroups
from passk_guard.runtime.registry import Registry


@dataclass(frozen=True)
class Estimator:
    """A way from rewards to pass@k advantages.

    Attributes:
        advantages: ``f(rewards, k)``, ``(groups, n)`` both, see
            :mod:`passk_guard.objectives.advantages`.
        least_group: the smallest group, by k, in which it can tell one rollout from another; in a
            smaller one every advantage is 0.
        has_k: whether k plays a part.
        prompt_weight: ``f(k, groups, correct, n)``, the weight on ĝ that training in these groups
            gives to a prompt with ``correct`` of a probe's ``n`` rollouts right. Left out, it is
            found from the advantages, see :mod:`passk_guard.objectives.training_weight`, which is
            right for every estimator whose advantages depend on one group's rewards alone.
    """

    advantages: Callable[[Tensor, int], Tensor]
    least_group: Callable[[int], int]
    has_k: bool = True
    prompt_weight: Callable[[float, TrainingGroups, int, int], float] | None = None


ESTIMATORS = Registry[Estimator]("objective")


def register_estimator(name: str, estimator: Estimator) -> None:
    """Make ``objective=name`` and ``PassKObjective(estimator=name)`` known."""
    ESTIMATORS.register(name, estimator)


register_estimator("pkpo", Estimator(pkpo_advantages, lambda k: max(k, 2)))
# The best of the only k-subset of k rollouts is worth as much as the mean over subsets.
register_estimator("analytic", Estimator(analytic_advantages, lambda k: k + 1))
register_estimator(
    "best_minus_second", Estimator(best_minus_second_advantages, lambda k: 2, has_k=False)
)
register_estimator("maxrl", Estimator(maxrl_advantages, lambda k: 2, has_k=False))
