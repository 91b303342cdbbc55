"""Pass@1 on the training batches, read off the rewards that the trainer computes anyway."""

from __future__ import annotations

from typing import Any

import torch

from passk_guard.rollouts.verifier import decide_success


class TrainingRewards:
    """Counts right rollouts in training batches. A second, never deciding, sensor of the level.

    Training prompts are trained on, so their pass@1 may rise while the held-out one falls; and
    each batch is of other prompts. Reading costs nothing and changes nothing: TRL keeps the
    rewards of its latest generation batch, of all processes, for its completions table.

    Args:
        trainer: a ``GRPOTrainer`` or ``RLOOTrainer``.
        verifier: decides "right"; where it is none of the trainer's rewards, nothing is seen.
        threshold: reward from which a rollout is right.
    """

    def __init__(self, trainer: Any, verifier: Any, threshold: float) -> None:
        names = zip(trainer.reward_funcs, trainer.reward_func_names, strict=True)
        self._name = next((name for func, name in names if func is verifier), None)
        self._trainer, self._threshold = trainer, threshold
        self._right = self._scored = 0.0

    def observe(self) -> None:
        """Take in the batch that the last step was trained on."""
        logged = getattr(self._trainer, "_logs", {}).get("rewards", {})
        rewards = torch.tensor(
            [float("nan") if r is None else r for r in logged.get(self._name, [])],
            dtype=torch.float32,
            device="cpu",
        )
        success = decide_success(rewards, self._threshold)
        self._right += float(success.nansum())
        self._scored += float((~success.isnan()).sum())

    def pass_at_1(self) -> float | None:
        """Over the rollouts since the last call; ``None`` where none were seen."""
        right, scored = self._right, self._scored
        self._right = self._scored = 0.0
        return right / scored if scored else None
