"""passk-guard for any ``transformers.Trainer``: one callback line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

from transformers import Trainer

from passk_guard.config import PassKGuardConfig, Settings, check_keywords
from passk_guard.integrations._trainer_adapter import TransformersAdapter
from passk_guard.integrations._trainer_callback import GuardCallback
from passk_guard.objectives.passk_objective import PassKObjective
from passk_guard.session.trainer_adapter import Arguments

__all__ = ["PassKGuardCallback"]


class PassKGuardCallback(GuardCallback):
    """Guards pass@1 in any ``transformers.Trainer``, whatever its loss::

        from passk_guard.integrations.transformers import PassKGuardCallback

        callback = PassKGuardCallback(trainer, prompts=held_out, reward_funcs=verify, k=4)
        trainer.add_callback(callback)
        trainer.train()
        print(callback.guard.history[-1].track)

    ``Trainer(..., callbacks=[PassKGuardCallback(prompts=held_out, ...)])`` works, too.

    The guard samples from the trainer's model by itself, and tests the pass@k gradient, since a
    plain trainer shows no advantages. What it logs: see :mod:`passk_guard.reporting.scalars`. All
    other keywords are those of :class:`~passk_guard.config.PassKGuardConfig`.

    Args:
        trainer: the trainer to guard; may be left out in the second form.
        prompts: held-out pool: strings, chat messages, dict rows, a ``datasets.Dataset``, a
            DataFrame or the path of a ``.jsonl`` file; by default the trainer's eval dataset.
        reward_funcs: verifier ``f(prompts, completions, **columns)``, or several.
        success: name of the one that decides "right", or a verifier of its own.
        success_threshold: score from which a rollout counts as right.
        objective: the :class:`~passk_guard.PassKObjective` that the trainer's loss uses, if it
            does: it is read, and steered by ``"mix"`` and ``"adjust_k"``.
        policy: ``f(model)`` that gives a :class:`~passk_guard.rollouts.policy.Policy`; by default
            ``HFPolicy(model, processing_class)``.
        temperature: sampling temperature of probes; 1 by default.
        max_completion_length: tokens per completion; by default the model's ``max_new_tokens``.
        anchor_prompts: training prompts, never held-out ones, on which ``action="mix"`` adds a
            pass@1 loss while there is a conflict, where there is no ``objective`` to steer.
        anchor_batch_size: anchor prompts per optimizer step.

    Attributes:
        guard: the :class:`~passk_guard.guard.PassKGuard`; its ``history`` holds the probes.

    Raises:
        ValueError, TypeError: at once where the trainer is given, else as training starts.
    """

    def __init__(
        self,
        trainer: Trainer | None = None,
        *,
        prompts: Any = None,
        reward_funcs: Any = None,
        success: str | Callable[..., Any] | None = None,
        success_threshold: float = 0.5,
        objective: PassKObjective | None = None,
        policy: Callable[[Any], Any] | None = None,
        temperature: float | None = None,
        max_completion_length: int | None = None,
        anchor_prompts: Any = None,
        anchor_batch_size: int = 8,
        **settings: Unpack[Settings],
    ) -> None:
        check_keywords(PassKGuardCallback, settings)
        arguments = Arguments(
            prompts=prompts,
            reward_funcs=reward_funcs,
            success=success,
            success_threshold=success_threshold,
            objective=objective,
            policy=policy,
            temperature=temperature,
            max_completion_length=max_completion_length,
            anchor_prompts=anchor_prompts,
            anchor_batch_size=anchor_batch_size,
        )
        super().__init__(PassKGuardConfig(**settings), arguments, trainer)

    def _adapter_class(self, trainer: Any) -> type[TransformersAdapter]:
        if not isinstance(trainer, Trainer):
            raise TypeError(
                "passk_guard.integrations.transformers.PassKGuardCallback guards a "
                f"transformers.Trainer, got {type(trainer).__name__}. For Lightning use "
                "passk_guard.integrations.lightning."
            )
        if hasattr(trainer, "_calculate_rewards"):
            raise TypeError(
                f"{type(trainer).__name__} computes rewards and advantages of its own, which the "
                "guard can read: use passk_guard.integrations.trl.PassKGuardCallback."
            )
        return TransformersAdapter
