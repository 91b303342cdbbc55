"""Pass@k objectives: rewards of a group of rollouts in, advantages out, with k and λ live."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from passk_guard.advantages import (
    analytic_advantages,
    best_minus_second_advantages,
    leave_one_out_advantages,
    maxrl_advantages,
    pkpo_advantages,
)
from passk_guard.passk import unbiased_prompt_weight
from passk_guard.training_weight import (
    TrainingGroups,
    host_prompt_weight,
    training_prompt_weight,
    unscaled,
)

__all__ = ["ESTIMATORS", "AnchorMix", "Estimator", "LiveObjective", "PassKObjective", "TrainerMix"]


@dataclass(frozen=True)
class Estimator:
    """A way from rewards to pass@k advantages.

    Attributes:
        advantages: ``f(rewards, k)``, see :mod:`passk_guard.advantages`.
        least_group: the smallest group, by k, in which it can tell one rollout from another; in a
            smaller one every advantage is 0.
        has_k: whether k plays a part.
    """

    advantages: Callable[[Tensor, int], Tensor]
    least_group: Callable[[int], int]
    has_k: bool = True


class PassKObjective:
    """``(1-λ) A_k + λ A_1`` on the same rollouts, with ``k`` and ``pass1_weight = λ`` live.

    The mean over a group of ``A_j ∇log π(y_j)`` is an unbiased estimate of
    ``(1-λ) ∇J_k + λ ∇J_1``.

    Args:
        k: tries of the pass@k objective; may be set at any time. Between two whole numbers the
            advantages of both are mixed.
        pass1_weight: λ in [0, 1]; may be set at any time.
        estimator: ``"pkpo"``, ``"analytic"``, ``"best_minus_second"`` or ``"maxrl"``, see
            :mod:`passk_guard.advantages`. The last two have no k of their own.
        group_size: rollouts per training group. Noted at each call; give it where the guard looks
            before the first one and the estimator is not ``"pkpo"``, whose prompt weights do not
            depend on it.

    Raises:
        ValueError: an argument is unusable, or groups are smaller than the estimator can do with.

    >>> import torch
    >>> objective = PassKObjective(k=2)
    >>> objective(torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]])).round(decimals=2)
    tensor([[2.0000, 0.0000, 0.0000, 0.0000],
            [0.6700, 0.6700, 0.6700, 0.0000]])
    """

    def __init__(
        self,
        k: int,
        pass1_weight: float = 0.0,
        estimator: str = "pkpo",
        group_size: int | None = None,
    ) -> None:
        if estimator not in ESTIMATORS:
            raise ValueError(
                f"estimator={estimator!r} is not known. Choose one of: {', '.join(ESTIMATORS)}."
            )
        self.estimator = estimator
        self.k = k
        self.pass1_weight = pass1_weight
        self.group_size = group_size
        if group_size is not None:
            self._check_group(group_size)

    @property
    def k(self) -> float:
        """Tries; an ``int`` where whole."""
        return self._k

    @k.setter
    def k(self, k: float) -> None:
        if isinstance(k, bool) or not 1 <= k < math.inf:
            raise ValueError(f"k must be a number of tries, at least 1, got {k!r}.")
        self._k = int(k) if int(k) == k else float(k)

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
        if rewards.ndim == 2:
            self._check_group(rewards.shape[-1])
            self.group_size = rewards.shape[-1]
        return self._mixed(rewards)

    @property
    def least_group(self) -> int:
        """The smallest group of rollouts that the estimator can learn from at the present k."""
        return ESTIMATORS[self.estimator].least_group(math.ceil(self.k))

    def _check_group(self, size: int) -> None:
        least = self.least_group
        if size < least:
            what = f" with k={self.k:g}" if ESTIMATORS[self.estimator].has_k else ""
            raise ValueError(
                f"estimator={self.estimator!r}{what} needs groups of at least {least} rollouts, "
                f"got {size}: in smaller ones every advantage is 0. Raise num_generations to "
                f"{least} or more{', or lower k' if what else ''}."
            )

    def _mixed(self, rewards: Tensor) -> Tensor:
        if self.pass1_weight == 1.0:
            return leave_one_out_advantages(rewards)
        passk = self.passk(rewards)
        if self.pass1_weight == 0.0:
            return passk
        pass1 = leave_one_out_advantages(rewards)
        return (1 - self.pass1_weight) * passk + self.pass1_weight * pass1

    def passk(self, rewards: Tensor) -> Tensor:
        """``A_k`` alone, at the present k."""
        estimator = ESTIMATORS[self.estimator].advantages
        lower = math.floor(self.k)
        advantages = estimator(rewards, lower)
        if lower < self.k:
            part = self.k - lower
            advantages = (1 - part) * advantages + part * estimator(rewards, lower + 1)
        return advantages

    def prompt_weight(
        self, correct: int, n: int, host: float | None, training: TrainingGroups | None
    ) -> float:
        """The weight on ĝ that training gives to a prompt, for two-valued rewards.

        That of ``(1-λ) A_k + λ A_1`` in groups as the run trains on, see
        :mod:`passk_guard.training_weight`.

        Args:
            correct: right rollouts of a probe, one at least and not all.
            n: all of them.
            host: the weight that the trainer's own pass@1 advantages amount to in the probe, which
                carries its scale.
            training: the training groups; those of :attr:`group_size` where ``None``, and as
                large as the probe's where that is not known either.
        """
        training = training or TrainingGroups(self.group_size or n)
        weight = training_prompt_weight(self._mixed, training, correct, n)
        return weight if host is None else weight * unscaled(host, training, correct, n)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on after a resume."""
        return {"k": self.k, "pass1_weight": self.pass1_weight, "group_size": self.group_size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        self.k, self.pass1_weight = state["k"], state["pass1_weight"]
        self.group_size = state.get("group_size", self.group_size)


class _Scaled:
    """λ and a scale, live."""

    def __init__(self, k: float) -> None:
        self.k = k
        self.pass1_weight = 0.0
        self.scale = 1.0

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on after a resume."""
        return {"pass1_weight": self.pass1_weight, "scale": self.scale}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        self.pass1_weight, self.scale = state["pass1_weight"], state.get("scale", self.scale)


class TrainerMix(_Scaled):
    """``(1-λ) A_trainer + λ A_1``: the trainer's own advantages, with a pass@1 term mixed in.

    Args:
        k: what the run optimises; only recorded.

    Attributes:
        pass1_weight: λ in [0, 1]; may be set at any time.
        scale: of A_1, as a multiple of ``r - r̄``; what mixes them chooses it so that both parts
            are of one size.
    """

    def prompt_weight(
        self, correct: int, n: int, host: float | None, training: TrainingGroups | None
    ) -> float:
        """The weight on ĝ that training gives to a prompt, as in :class:`PassKObjective`."""
        own = 0.0 if host is None else host_prompt_weight(host, training, correct, n)
        return (1 - self.pass1_weight) * own + self.pass1_weight * self.scale


class AnchorMix(_Scaled):
    """``L_host + λ/(1-λ) s L_1``: a pass@1 loss beside a loss that the guard cannot reach into.

    Up to the step's size, which Adam and clipping level out, ``(1-λ) L_host + λ s L_1``.

    Args:
        k: what the run optimises; only recorded.

    Attributes:
        pass1_weight: λ in [0, 1]; may be set at any time.
        scale: s; what adds the gradients chooses it so that both parts are of one size.
    """

    _most = 0.95  # a host loss with no share at all would not be the user's run any more

    @property
    def _share(self) -> float:
        return min(self.pass1_weight, self._most)

    @property
    def factor(self) -> float:
        """What the gradient of ``L_1`` is multiplied with."""
        return self._share / (1 - self._share) * self.scale

    def prompt_weight(
        self, correct: int, n: int, host: float | None, training: TrainingGroups | None
    ) -> float:
        """The weight on ĝ of the step that is applied, ``(1-λ) W_host + λ s``, λ as capped.

        The host's loss cannot be seen. It is taken for a pass@k one in the units of
        :class:`PassKObjective`, the mean over rollouts of ``-A Σ_t log π``: a loss in other units
        has its scale in s.
        """
        weight = float(unbiased_prompt_weight(correct, n, int(self.k)))
        own = weight if host is None else host
        return (1 - self._share) * own + self._share * self.scale


LiveObjective = PassKObjective | TrainerMix | AnchorMix

ESTIMATORS: dict[str, Estimator] = {
    "pkpo": Estimator(pkpo_advantages, lambda k: max(k, 2)),
    # The best of the only k-subset of k rollouts is worth as much as the mean over subsets.
    "analytic": Estimator(analytic_advantages, lambda k: k + 1),
    "best_minus_second": Estimator(best_minus_second_advantages, lambda k: 2, has_k=False),
    "maxrl": Estimator(maxrl_advantages, lambda k: 2, has_k=False),
}
