"""Finding the TRL trainer and checking what it and the user bring, before training starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from passk_guard.config import PassKGuardConfig
from passk_guard.integrations._needs import Need, check_needs
from passk_guard.integrations._trl_vllm import check_engine, reachable_engine
from passk_guard.objectives.estimators import ESTIMATORS
from passk_guard.objectives.training_weight import TrainingGroups
from passk_guard.rollouts.verifier import check_verifier, choose_verifier
from passk_guard.rollouts.verifier_timeout import is_async
from passk_guard.runtime.processes import everywhere

_NEEDS = (
    Need("_generate_and_score_completions", 1, "sample as the trainer does, and mix advantages"),
    Need("_prepare_inputs", 1, "mix advantages while a batch is used"),
    Need("_calculate_rewards", None, "see which rollouts are right"),
    Need("reward_funcs", None, "find the verifier"),
    Need("reward_func_names", None, "find the verifier"),
    Need("reward_processing_classes", None, "add a verifier to a probe"),
    Need("reward_weights", None, "add a verifier to a probe"),
    Need("num_generations", None, "know the groups"),
    Need("temperature", None, "score what was sampled"),
    Need("max_completion_length", None, "say what was sampled"),
    Need("args.generation_batch_size", None, "sample no more at once than training does"),
    Need("accelerator.gather", 1, "see all processes' advantages"),
)


def check_trainer(trainer: Any, config: PassKGuardConfig, temperature: float | None) -> None:
    """Refuse a trainer that the guard cannot serve, or not with these settings.

    Raises:
        ValueError: groups too small for the estimator, or sampling that cannot be made neutral.
        RuntimeError: this release of TRL lacks something that the guard needs.
    """
    check_needs(trainer, _NEEDS, "trl", ">=0.22.2,<2")
    if config.objective is not None:
        least = ESTIMATORS[config.objective].least_group(config.k)
        if trainer.num_generations < least:
            raise ValueError(
                f"objective={config.objective!r} with k={config.k} needs groups of at least "
                f"{least} rollouts, but the trainer has num_generations="
                f"{trainer.num_generations}: in smaller ones every advantage is 0, or undefined. "
                f"Raise it to {least} or more in the trainer's config, or lower k."
            )
    if (engine := reachable_engine(trainer)) is not None:
        everywhere(lambda: check_engine(engine))
    elif getattr(trainer, "use_vllm", False):
        _check_vllm(trainer, {temperature, config.report_temperature} - {None, trainer.temperature})


# Of vLLM's sampling parameters those that leave it open which token follows.
_VLLM_HARMLESS = (
    *("max_tokens", "stop", "stop_token_ids", "include_stop_str_in_output", "detokenize"),
    *("skip_special_tokens", "spaces_between_special_tokens", "logprobs"),
)
_VLLM_PLAIN = {
    **{"top_p": 1.0, "top_k": 0, "min_p": 0.0, "min_tokens": 0, "repetition_penalty": 1.0},
    **{"presence_penalty": 0.0, "frequency_penalty": 0.0},
}


def _check_vllm(trainer: Any, other_temperatures: set[Any]) -> None:
    """For releases of TRL in which a probe cannot reach vLLM's settings."""
    args = trainer.args
    own = {name: getattr(trainer, name, None) for name in ("top_p", "top_k", "min_p")}
    own["repetition_penalty"] = trainer.repetition_penalty
    plain = {**_VLLM_PLAIN, "temperature": trainer.temperature}
    given = {**own, **(getattr(args, "generation_kwargs", None) or {})}
    if given["top_k"] == -1:  # vLLM's own word for none
        given["top_k"] = 0
    found = [
        f"{name}={value!r}"
        for name, value in given.items()
        if value is not None and name not in _VLLM_HARMLESS and plain.get(name) != value
    ]
    for name in ("vllm_structured_outputs_regex", "vllm_guided_decoding_regex"):
        if getattr(args, name, None) is not None:
            found.append(name)
    found += [f"temperature {value!r} in the callback" for value in sorted(other_temperatures)]
    if found:
        raise ValueError(
            "vLLM samples with settings of its own, which a probe cannot change in this release of "
            f"TRL: its scores would not belong to its rollouts. Here: {', '.join(found)}. Remove "
            "filters, penalties and constraints from GRPOConfig and its generation_kwargs, and "
            "temperatures other than the trainer's from the callback, or update TRL."
        )


def training_groups(trainer: Any) -> TrainingGroups:
    """The groups that the trainer trains on, and whether it scales each by its own rewards."""
    how = getattr(trainer, "scale_rewards", "none")  # RLOO has none, or scales whole batches
    return TrainingGroups(trainer.num_generations, scaled=how not in ("none", "batch", False))


def pick_verifier(
    trainer: Any,
    reward_funcs: Any,
    success: str | Callable[..., Any] | None,
    rows: Sequence[Mapping[str, Any]],
) -> Any:
    """The function that decides "right": one of the trainer's, or one of the user's own.

    Raises:
        ValueError: it is ambiguous, or cannot be called on these rows.
    """
    if taken := sorted({"prompts", "completions"} & set(rows[0])):
        raise ValueError(
            f"prompts has a column {taken[0]!r}, the name under which TRL gives a reward function "
            "what was sampled. Rename or drop it."
        )
    if reward_funcs is None:
        verifier = choose_verifier(trainer.reward_funcs, success, trainer.reward_func_names)
    else:
        verifier = choose_verifier(reward_funcs, success)
    for func in [verifier, *trainer.reward_funcs]:  # the trainer's run in probes, too
        check_verifier(func, set(rows[0]))
    if any(func is verifier for func in trainer.reward_funcs):
        return verifier
    if isinstance(verifier, str):
        raise ValueError(
            f"reward_funcs={verifier!r} names a reward model. Pass a verifier function, or give "
            "the model to the trainer and its name as success."
        )
    if is_async(verifier) and not getattr(trainer, "_has_async_funcs", False):
        raise ValueError(
            "The verifier is async, but the trainer has no async reward function and so no event "
            "loop. Pass a plain function, or add it to the trainer's reward_funcs."
        )
    return verifier
