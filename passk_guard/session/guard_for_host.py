"""A guard for trainers that have a model, but neither rollouts nor advantages to share."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import nn

from passk_guard.checks import check_call
from passk_guard.config import PassKGuardConfig
from passk_guard.guard import PassKGuard
from passk_guard.objectives.live import LiveObjective
from passk_guard.objectives.mixes import AnchorMix
from passk_guard.objectives.passk_objective import PassKObjective
from passk_guard.prompts.pool import HeldOutPool
from passk_guard.prompts.rows import check_texts
from passk_guard.remedies.anchors import AnchorLoss, AnchorTerm
from passk_guard.rollouts.hf_policy import HFPolicy
from passk_guard.rollouts.policy import Policy, lacking
from passk_guard.rollouts.verified_policy import VerifiedPolicy
from passk_guard.rollouts.verifier import check_verifier, choose_verifier, verifier_name
from passk_guard.runtime.isolation import isolated
from passk_guard.runtime.processes import world
from passk_guard.session.arguments import Arguments
from passk_guard.session.held_out import anchor_rows, held_out_rows
from passk_guard.session.host import Host


def hosted_guard(
    host: Host, given: Arguments, config: PassKGuardConfig
) -> tuple[PassKGuard, AnchorTerm | None]:
    """Check everything, and put the guard together.

    Raises:
        ValueError, TypeError: an argument is missing or unusable; the message says which, and how
            to fix it.
    """
    live = _live_objective(host, given, config)
    rank, _ = world()
    rows = held_out_rows(
        given.prompts,
        config,
        instead=host.prompts,
        training=host.training_prompts,
        is_main=rank == 0,
    )
    anchors = None
    if isinstance(live, AnchorMix):
        anchors = anchor_rows(given.anchor_prompts, rows, is_main=rank == 0)
    verifier = _verifier(host, given, rows)
    own = _policy(host, given)
    if anchors is not None and not hasattr(own, "parameters"):
        raise ValueError(
            "action='mix' adds a gradient on anchor_prompts to the parameters, but the policy has "
            "no parameters() here. Compute your loss with passk_guard.PassKObjective and pass that "
            "object as objective=, or use action='warn'."
        )
    if isinstance(own, HFPolicy):
        check_texts(rows, own.tokenizer)
        if anchors is not None:
            check_texts(anchors, own.tokenizer, "anchor_prompts")

    def isolation(seed: int) -> AbstractContextManager[None]:
        return isolated(host.module, seed=seed + rank)

    policy = VerifiedPolicy(
        own,
        verifier,
        given.success_threshold,
        timeout=config.verifier_timeout,
        autocast=host.autocast,
        trainer_state=host.state,
        module=host.module,
    )
    guard = PassKGuard(
        policy,
        HeldOutPool(rows, config.seed, weight_by=config.weight_by),
        config,
        isolation=isolation,
        objective=live,
        micro_batch=host.micro_batch,
        optimizer=host.optimizer,
        say=host.say,
        progress=host.progress,
        is_main=rank == 0,
        sampling={
            "verifier": None if verifier is None else verifier_name(verifier),
            "success_threshold": given.success_threshold,
            "temperature": 1.0 if given.temperature is None else given.temperature,
            "max_completion_length": given.max_completion_length,
        },
        rollouts_per_step=host.samples_per_step,
    )
    if anchors is None or not isinstance(live, AnchorMix):
        return guard, None
    if verifier is not None:
        check_verifier(verifier, set(anchors[0]), "anchor_prompts")
    loss = AnchorLoss(
        policy,
        HeldOutPool(anchors, config.seed + 1),
        config.n,
        given.anchor_batch_size,
        isolation,
        guard.passes,
    )
    return guard, AnchorTerm(loss, live, config.seed, config.strict)


def _policy(host: Host, given: Arguments) -> Policy:
    if given.policy is not None:
        make = _imported(given.policy)
        if callable(make):
            check_call("policy", make, "model")
        policy = make(host.module) if callable(make) else make
        if missing := lacking(policy):
            raise TypeError(
                f"policy must give an object with generate, log_probs and parameters (or gramian), "
                f"got {type(policy).__name__} without {', '.join(missing)}. See "
                "passk_guard.rollouts.policy.Policy."
            )
        return policy  # type: ignore[no-any-return]
    return HFPolicy(
        host.model,
        host.tokenizer,
        max_completion_length=given.max_completion_length,
        temperature=1.0 if given.temperature is None else given.temperature,
    )


def _verifier(host: Host, given: Arguments, rows: Sequence[Mapping[str, Any]]) -> Any:
    """The function that decides "right"; ``None`` where a policy of the user's own does."""
    funcs = host.reward_funcs if given.reward_funcs is None else given.reward_funcs
    if funcs is None and given.success is None:
        if given.policy is not None:
            return None
        raise ValueError(
            f"reward_funcs is missing, and {host.name} has none of its own. Pass a verifier: "
            "reward_funcs=verify with verify(prompts, completions, **columns) -> list of scores."
        )
    if isinstance(funcs, (list, tuple)):
        funcs = [_imported(func) for func in funcs]
    success = given.success
    if isinstance(success, str) and funcs is None:
        success = _imported(success)
    verifier = choose_verifier(_imported(funcs), success)
    if isinstance(verifier, (str, nn.Module)):
        raise ValueError(
            f"reward_funcs={verifier!r} is not a function. Pass a verifier function, or its "
            "dotted path such as 'my_module.verify'."
        )
    check_verifier(verifier, set(rows[0]))
    return verifier


def _imported(value: Any) -> Any:
    """What a dotted path such as ``"my_module.verify"`` (from YAML) names; else the value."""
    if not isinstance(value, str) or "." not in value:
        return value
    module, _, name = value.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{value!r} cannot be imported: {error}.") from error


def _live_objective(host: Host, given: Arguments, config: PassKGuardConfig) -> LiveObjective | None:
    objective = given.objective
    if isinstance(objective, str):
        raise ValueError(
            f"objective={objective!r} would replace a trainer's advantages, and {host.name} has "
            f"none. Compute your loss with passk_guard.PassKObjective(k={config.k}, "
            f"estimator={objective!r}) and pass that same object as objective=: the guard then "
            "reads and steers it."
        )
    if objective is not None and not isinstance(objective, PassKObjective):
        raise TypeError(
            f"objective must be the PassKObjective that your loss uses, or None, got "
            f"{type(objective).__name__}."
        )
    if objective is not None and objective.k != config.k:
        raise ValueError(
            f"k={config.k}, but objective has k={objective.k:g}. Pass the same k to both."
        )
    wants_mix = config.remedy == "mix"
    if given.anchor_prompts is not None and (objective is not None or not wants_mix):
        raise ValueError(
            "anchor_prompts is what action='mix' adds a pass@1 loss on, where the guard has no "
            "objective= to steer. "
            + ("Leave out one of the two." if objective is not None else "Add action='mix'.")
        )
    if objective is not None or config.remedy is None:
        return objective
    if host.why_no_mix is not None:
        raise ValueError(f"action={config.action!r} is not possible here: {host.why_no_mix}")
    if not wants_mix:
        raise ValueError(
            "action='adjust_k' lowers the k of an objective that the guard can reach. Compute your "
            f"loss with passk_guard.PassKObjective(k={config.k}) and pass that object as "
            "objective=, or use action='mix' with anchor_prompts=."
        )
    if given.anchor_prompts is None:
        raise ValueError(
            f"action='mix' needs anchor_prompts on {host.name}: training prompts on which a pass@1 "
            "loss is added while there is a conflict. Or compute your loss with "
            "passk_guard.PassKObjective and pass that object as objective=."
        )
    return AnchorMix(config.k)
