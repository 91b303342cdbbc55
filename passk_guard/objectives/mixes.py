"""A pass@1 term beside what a trainer computes by itself, with λ live."""

from __future__ import annotations

from passk_guard.objectives.training_weight import (
    TrainingGroups,
    trainer_prompt_weight,
)
from passk_guard.passk import unbiased_prompt_weight
from passk_guard.runtime.stored import Stored


class _Scaled(Stored):
    """λ and a scale, live."""

    _stored = ("pass1_weight", "scale")

    has_k = False
    beside_trainer = True

    def __init__(self, k: float) -> None:
        self.k = k
        self.pass1_weight = 0.0
        self.scale = 1.0


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
        self, correct: int, n: int, trainer_weight: float | None, training: TrainingGroups | None
    ) -> float:
        """The weight on ĝ that training gives to a prompt, as in :class:`PassKObjective`."""
        own = (
            0.0
            if trainer_weight is None
            else trainer_prompt_weight(trainer_weight, training, correct, n)
        )
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
        """What the gradient of ``L_1`` is multiplied by."""
        return self._share / (1 - self._share) * self.scale

    def prompt_weight(
        self, correct: int, n: int, trainer_weight: float | None, training: TrainingGroups | None
    ) -> float:
        """The weight on ĝ of the step that is applied, ``(1-λ) W_host + λ s``, λ as capped.

        The host's loss cannot be seen. It is taken for a pass@k one in the units of
        :class:`PassKObjective`, the mean over rollouts of ``-A Σ_t log π``: a loss in other units
        has its scale in s.
        """
        weight = float(unbiased_prompt_weight(correct, n, int(self.k)))
        own = weight if trainer_weight is None else trainer_weight
        return (1 - self._share) * own + self._share * self.scale
