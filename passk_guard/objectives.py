"""Pass@k objectives: rewards of a group of rollouts in, advantages out, with k and λ live."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from passk_guard.advantages import (
    analytic_advantages,
    best_minus_second_advantages,
    leave_one_out_advantages,
    maxrl_advantages,
    pkpo_advantages,
)
from passk_guard.passk import unbiased_prompt_weight

__all__ = ["ESTIMATORS", "AnchorMix", "LiveObjective", "PassKObjective", "TrainerMix"]


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
        if self.pass1_weight == 1.0:
            return leave_one_out_advantages(rewards)
        passk = self.passk(rewards)
        if self.pass1_weight == 0.0:
            return passk
        pass1 = leave_one_out_advantages(rewards)
        return (1 - self.pass1_weight) * passk + self.pass1_weight * pass1

    def passk(self, rewards: Tensor) -> Tensor:
        """``A_k`` alone, at the present k."""
        estimator = ESTIMATORS[self.estimator]
        lower = math.floor(self.k)
        advantages = estimator(rewards, lower)
        if lower < self.k:
            part = self.k - lower
            advantages = (1 - part) * advantages + part * estimator(rewards, lower + 1)
        return advantages

    def prompt_weight(self, success: Tensor, host: float | None) -> float:
        """The weight on ĝ that training gives to a prompt, for two-valued rewards.

        ``(1-λ) W_k + λ``, times the trainer's own scale. For advantages that are centred in each
        group W_k is ``(n-1)/n (A_right - A_wrong)``, exactly; those of PKPO are not, and have the
        expectation of ``ŵ_k(c) ĝ`` (of ``ŵ_{n-1}`` for ``"best_minus_second"``, nearly).

        Args:
            success: ``(n,)`` 1.0 right, 0.0 wrong, one of each at least.
            host: the same of the trainer's own pass@1 advantages, which carries its scale.
        """
        share = self.pass1_weight
        weight = (1 - share) * self._passk_weight(success) + share
        return weight if host is None else host * weight

    def _passk_weight(self, success: Tensor) -> float:
        n, correct = len(success), int(success.sum())
        if self.estimator in ("pkpo", "best_minus_second"):
            k = min(self.k, n - 1) if self.estimator == "pkpo" else n - 1
            lower = math.floor(k)
            weight, part = unbiased_prompt_weight(correct, n, lower), k - lower
            if part:
                weight += part * (unbiased_prompt_weight(correct, n, lower + 1) - weight)
            return float(weight)
        advantages = self.passk(success[None].double())[0]
        right = success > 0.5
        return (n - 1) / n * float(advantages[right].mean() - advantages[~right].mean())


class TrainerMix:
    """``(1-λ) A_trainer + λ A_1``: the trainer's own advantages, with a pass@1 term mixed in.

    Args:
        k: what the run optimises; only recorded.

    Attributes:
        pass1_weight: λ in [0, 1]; may be set at any time.
        scale: of A_1, as a multiple of ``r - r̄``; what mixes them chooses it so that both parts
            are of one size.
    """

    def __init__(self, k: float) -> None:
        self.k = k
        self.pass1_weight = 0.0
        self.scale = 1.0

    def prompt_weight(self, success: Tensor, host: float | None) -> float:
        """The weight on ĝ that training gives to a prompt, as in :class:`PassKObjective`."""
        own = 0.0 if host is None else host
        return (1 - self.pass1_weight) * own + self.pass1_weight * self.scale


class AnchorMix:
    """``L_host + λ/(1-λ) s L_1``: a pass@1 loss beside a loss that the guard cannot reach into.

    Up to the step's size, which Adam and clipping level out, ``(1-λ) L_host + λ s L_1``.

    Args:
        k: what the run optimises; only recorded.

    Attributes:
        pass1_weight: λ in [0, 1]; may be set at any time.
        scale: s; what adds the gradients chooses it so that both parts are of one size.
    """

    _most = 0.95  # a host loss with no share at all would not be the user's run any more

    def __init__(self, k: float) -> None:
        self.k = k
        self.pass1_weight = 0.0
        self.scale = 1.0

    @property
    def factor(self) -> float:
        """What the gradient of ``L_1`` is multiplied with."""
        share = min(self.pass1_weight, self._most)
        return share / (1 - share) * self.scale

    def prompt_weight(self, success: Tensor, host: float | None) -> float:
        """The weight on ĝ, taking the host's loss for a pass@k one: it cannot be seen."""
        n = len(success)
        weight = float(unbiased_prompt_weight(int(success.sum()), n, int(self.k)))
        return (1 - self.pass1_weight) * (weight if host is None else host) + self.pass1_weight


LiveObjective = PassKObjective | TrainerMix | AnchorMix

ESTIMATORS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "pkpo": pkpo_advantages,
    "analytic": analytic_advantages,
    "best_minus_second": best_minus_second_advantages,
    "maxrl": maxrl_advantages,
}
