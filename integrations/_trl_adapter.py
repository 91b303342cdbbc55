"""TRL's trainers as the guard sees them: those with advantages, and any other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from passk_guard.integrations._trainer_adapter import TransformersAdapter
from passk_guard.integrations._trl_environments import NO_PROMPT
from passk_guard.integrations._trl_objective import TRLObjective
from passk_guard.integrations._trl_policy import TRLPolicy
from passk_guard.integrations._trl_sampling import training_filters
from passk_guard.integrations._trl_setup import check_trainer, pick_verifier, training_groups
from passk_guard.objectives.mixes import TrainerMix
from passk_guard.objectives.passk_objective import PassKObjective
from passk_guard.prompts.rows import check_texts
from passk_guard.rollouts.verifier import decide_success
from passk_guard.session.trainer_adapter import GuardParts


class AdvantagesAdapter(TransformersAdapter):
    """A ``GRPOTrainer`` or ``RLOOTrainer``."""

    def build(self) -> GuardParts:
        """A guard that samples as the trainer does, and reads its rewards."""
        trainer, config, arguments = self.trainer, self.config, self.arguments
        check_trainer(trainer, config, arguments.temperature)
        self.read_trainer()
        factories = getattr(trainer, "environment_factories", None)
        rows = self.held_out_rows(NO_PROMPT if factories else None)
        check_texts(
            rows,
            trainer.processing_class,
            chat_template=getattr(trainer, "chat_template", None),
            tools=True,
        )
        verifier = pick_verifier(trainer, arguments.reward_funcs, arguments.success, rows)
        temperature = arguments.temperature
        if temperature is None:
            temperature = trainer.temperature
        threshold = arguments.success_threshold
        policy = TRLPolicy(
            trainer, verifier, threshold, temperature, config.verifier_timeout, self.say
        )
        self._say_what_differs()
        live: PassKObjective | TrainerMix | None = None
        if config.objective is not None:
            live = PassKObjective(config.k, estimator=config.objective)
        elif config.remedy == "mix":
            live = TrainerMix(config.k)
        hook = None
        if live is not None:
            hook = TRLObjective(trainer, live, verifier, threshold, config.strict)
        sensor = TrainingRewards(trainer, verifier, threshold)
        guard = self.make_guard(
            policy,
            rows,
            live,
            policy.isolated,
            verifier=verifier,
            temperature=temperature,
            max_completion_length=trainer.max_completion_length,
            training_pass_at_1=sensor.pass_at_1,
            training=training_groups(trainer),
        )
        late = factories is not None and hasattr(trainer, "_environment_pool")
        return GuardParts(guard, hook=hook, sensor=sensor, late=late)

    def _say_what_differs(self) -> None:
        trainer = self.trainer
        if told := training_filters(trainer):
            self.say(
                "passk-guard: training samples with "
                f"{', '.join(f'{name}={value!r}' for name, value in told.items())}; probes sample "
                "without, from the policy's own distribution, which the scores belong to. Their "
                "pass@1 is not that of the training rollouts."
            )
        if getattr(trainer, "vllm_mode", None) == "server" and getattr(trainer, "use_vllm", False):
            self.say(
                "passk-guard: rollouts come from a vLLM server. A server's random numbers cannot "
                "be rewound: with probes in between, training goes on with other rollouts than "
                "without, of the same distribution."
            )


class MonitoringAdapter(TransformersAdapter):
    """Any other trainer of TRL: its advantages, if it has any, cannot be reached."""

    def build(self) -> GuardParts:
        """A guard that only watches."""
        self.why_no_mix = (
            f"{self.name} has no advantages that the guard can reach, so it only watches. Use "
            "action='warn', 'checkpoint' or 'stop'; passk_guard.integrations.transformers adds a "
            "pass@1 loss on anchor_prompts to any trainer with a loss."
        )
        if self.config.objective is not None:
            raise ValueError(
                f"objective={self.config.objective!r} is not possible here: {self.why_no_mix}"
            )
        args = self.trainer.args
        self.arguments = replace(
            self.arguments,
            temperature=self.arguments.temperature or getattr(args, "temperature", None),
            max_completion_length=getattr(args, "max_completion_length", None)
            or getattr(args, "max_new_tokens", None),
        )
        parts = super().build()
        self.say(
            f"passk-guard: {self.name} shows no advantages, so the guard only watches, and tests "
            "the pass@k gradient."
        )
        return parts


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
        self._trainer = trainer
        self._threshold = threshold
        self._right = 0.0
        self._scored = 0.0

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
