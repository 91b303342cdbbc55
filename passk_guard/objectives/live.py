"""What the guard reads and steers of the objective that a run trains on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from passk_guard.objectives.training_weight import TrainingGroups


class LiveObjective(Protocol):
    """An objective whose k and λ may be set at any time.

    Attributes:
        k: tries.
        pass1_weight: λ in [0, 1], the share of pass@1.
    """

    k: float
    pass1_weight: float

    @property
    def has_k(self) -> bool:
        """Whether lowering k changes what is trained on."""
        ...

    @property
    def beside_trainer(self) -> bool:
        """Whether it is mixed into what the trainer computes, which has to be seen to be known."""
        ...

    def prompt_weight(
        self, correct: int, n: int, trainer_weight: float | None, training: TrainingGroups | None
    ) -> float:
        """The weight on ĝ that training gives to a prompt, for two-valued rewards.

        Args:
            correct: right rollouts of a probe, one at least and not all.
            n: all of them.
            trainer_weight: what the trainer's own advantages amount to in the probe, where they are
                seen.
            training: the groups that the run trains on, where they are known.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on after a resume."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        ...
