"""The pass@k objective: rewards of a group of rollouts in, advantages out, with k and λ live."""

from __future__ import annotations

import math

from torch import Tensor

from passk_guard.objectives.advantages import (
    leave_one_out_advantages,
)
from passk_guard.objectives.estimators import ESTIMATORS
from passk_guard.objectives.training_weight import (
    TrainingGroups,
    training_prompt_weight,
    unscaled,
)
from passk_guard.runtime.stored import Stored


class PassKObjective(Stored):
    """``(1-λ) A_k + λ A_1`` on the same rollouts, with ``k`` and ``pass1_weight = λ`` live.

    The mean over a group of ``A_j ∇log π(y_j)`` is an unbiased estimate of
    ``(1-λ) ∇J_k + λ ∇J_1``.

    Args:
        k: tries of the pass@k objective; may be set at any time. Between two whole numbers the
            advantages of both are mixed.
        pass1_weight: λ in [0, 1]; may be set at any time.
        estimator: ``"pkpo"``, ``"analytic"``, ``"best_minus_second"``, ``"maxrl"`` or a registered
            one, see :mod:`passk_guard.objectives.advantages`. ``"best_minus_second"`` and
            ``"maxrl"`` have no k of their own.
        group_size: rollouts per training group. Noted at each call; give it where the guard looks
            before the first one and the estimator is not ``"pkpo"``, whose prompt weights do not
            depend on it.

    Raises:
        ValueError: an argument is unusable, or groups are too small for the estimator.

    >>> import torch
    >>> objective = PassKObjective(k=2)
    >>> objective(torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]])).round(decimals=2)
    tensor([[2.0000, 0.0000, 0.0000, 0.0000],
            [0.6700, 0.6700, 0.6700, 0.0000]])
    """

    _stored = ("k", "pass1_weight", "group_size")

    beside_trainer = False

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

    @property
    def has_k(self) -> bool:
        """Whether lowering k changes what is trained on."""
        return ESTIMATORS[self.estimator].has_k

    def prompt_weight(
        self, correct: int, n: int, trainer_weight: float | None, training: TrainingGroups | None
    ) -> float:
        """The weight on ĝ that training gives to a prompt, for two-valued rewards.

        That of ``(1-λ) A_k + λ A_1`` in groups as the run trains on, see
        :mod:`passk_guard.objectives.training_weight`.

        Args:
            correct: right rollouts of a probe, one at least and not all.
            n: all of them.
            trainer_weight: what the trainer's own pass@1 advantages amount to in the probe, which
                carries its scale.
            training: the training groups; those of :attr:`group_size` where ``None``, and as
                large as the probe's where that is not known either.
        """
        training = training or TrainingGroups(self.group_size or n)
        own = ESTIMATORS[self.estimator].prompt_weight
        if own is None:
            weight = training_prompt_weight(self._mixed, training, correct, n)
        else:
            pass1 = training_prompt_weight(leave_one_out_advantages, training, correct, n)
            share = self.pass1_weight
            weight = (1 - share) * own(self.k, training, correct, n) + share * pass1
        return (
            weight
            if trainer_weight is None
            else weight * unscaled(trainer_weight, training, correct, n)
        )
