"""Building the guard of a TRL trainer: of one with advantages, and of any other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from passk_guard.guard import PassKGuard
from passk_guard.integrations._trainer_side import samples_per_step, trainer_host
from passk_guard.integrations._trl_environments import NO_PROMPT
from passk_guard.integrations._trl_objective import TRLObjective
from passk_guard.integrations._trl_policy import TRLPolicy
from passk_guard.integrations._trl_sampling import training_filters
from passk_guard.integrations._trl_sensor import TrainingRewards
from passk_guard.integrations._trl_setup import check_trainer, pick_verifier, training_groups
from passk_guard.objectives.mixes import TrainerMix
from passk_guard.objectives.passk_objective import PassKObjective
from passk_guard.prompts.pool import HeldOutPool
from passk_guard.prompts.rows import check_texts
from passk_guard.rollouts.verifier import verifier_name
from passk_guard.session.arguments import Arguments
from passk_guard.session.guard_for_host import hosted_guard
from passk_guard.session.held_out import held_out_rows
from passk_guard.session.session import Session


def advantages_guard(trainer: Any, given: Arguments, session: Session) -> dict[str, Any]:
    """For a ``GRPOTrainer`` or ``RLOOTrainer``: what the session attaches.

    Raises:
        ValueError, TypeError: an argument is missing or unusable; the message says which, and how
            to fix it.
    """
    config = session.config
    check_trainer(trainer, config, given.temperature)
    factories = getattr(trainer, "environment_factories", None)
    rows = held_out_rows(
        given.prompts,
        config,
        instead=trainer.eval_dataset,
        training=trainer.train_dataset,
        is_main=trainer.is_world_process_zero(),
        stand_in=NO_PROMPT if factories else None,
    )
    check_texts(
        rows,
        trainer.processing_class,
        chat_template=getattr(trainer, "chat_template", None),
        tools=True,
    )
    verifier = pick_verifier(trainer, given.reward_funcs, given.success, rows)
    temperature = trainer.temperature if given.temperature is None else given.temperature
    threshold = given.success_threshold
    policy = TRLPolicy(
        trainer, verifier, threshold, temperature, config.verifier_timeout, session.say
    )
    if told := training_filters(trainer):
        session.say(
            "passk-guard: training samples with "
            f"{', '.join(f'{name}={value!r}' for name, value in told.items())}; probes sample "
            "without, from the policy's own distribution, which the scores belong to. Their "
            "pass@1 is not that of the training rollouts."
        )
    if getattr(trainer, "vllm_mode", None) == "server" and getattr(trainer, "use_vllm", False):
        session.say(
            "passk-guard: rollouts come from a vLLM server. A server's random numbers cannot be "
            "rewound: with probes in between, training goes on with other rollouts than without, "
            "of the same distribution."
        )
    live: PassKObjective | TrainerMix | None = None
    if config.objective is not None:
        live = PassKObjective(config.k, estimator=config.objective)
    elif config.remedy == "mix":
        live = TrainerMix(config.k)
    hook = None
    if live is not None:
        hook = TRLObjective(trainer, live, verifier, threshold, config.strict)
    sensor = TrainingRewards(trainer, verifier, threshold)
    guard = PassKGuard(
        policy,
        HeldOutPool(rows, config.seed, weight_by=config.weight_by),
        config,
        isolation=policy.isolated,
        objective=live,
        micro_batch=trainer.args.per_device_train_batch_size,
        optimizer=lambda: trainer.optimizer,
        training_pass_at_1=sensor.pass_at_1,
        say=session.say,
        progress=session.terminal.progress,
        is_main=trainer.is_world_process_zero(),
        sampling={
            "verifier": verifier_name(verifier),
            "success_threshold": threshold,
            "temperature": temperature,
            "max_completion_length": trainer.max_completion_length,
        },
        training=training_groups(trainer),
        rollouts_per_step=lambda: samples_per_step(trainer),
    )
    late = factories is not None and hasattr(trainer, "_environment_pool")
    return {"guard": guard, "hook": hook, "sensor": sensor, "late": late}


def monitoring_guard(trainer: Any, given: Arguments, session: Session) -> PassKGuard:
    """For any other trainer of TRL: its advantages, if it has any, cannot be reached.

    Raises:
        ValueError, TypeError: as in :func:`advantages_guard`; or action is a remedy.
    """
    name, config, terminal = type(trainer).__name__, session.config, session.terminal
    why = (
        f"{name} has no advantages that the guard can reach, so it only watches. Use "
        "action='warn', 'checkpoint' or 'stop'; passk_guard.integrations.transformers adds a "
        "pass@1 loss on anchor_prompts to any trainer with a loss."
    )
    if config.objective is not None:
        raise ValueError(f"objective={config.objective!r} is not possible here: {why}")
    args = trainer.args
    given = replace(
        given,
        temperature=given.temperature or getattr(args, "temperature", None),
        max_completion_length=getattr(args, "max_completion_length", None)
        or getattr(args, "max_new_tokens", None),
    )
    host = trainer_host(trainer, terminal.say, terminal.progress, why_no_mix=why)
    guard, _ = hosted_guard(host, given, config)
    session.say(
        f"passk-guard: {name} shows no advantages, so the guard only watches, and tests the "
        "pass@k gradient."
    )
    return guard
