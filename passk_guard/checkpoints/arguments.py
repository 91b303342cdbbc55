"""What is probed, checked before anything is sampled."""

from __future__ import annotations

from typing import Any

from passk_guard.checks import check_between, check_whole
from passk_guard.rollouts.policy import lacking

__all__ = ["check_policy", "check_probe", "check_sampled", "policy_name"]


def check_probe(
    k: int, num_generations: Any, num_prompts: Any, prompts_at_once: Any, chance: Any
) -> int:
    """Rollouts per prompt.

    Raises:
        ValueError: an argument is unusable.
    """
    check_whole("k", k, 1)
    check_whole("num_prompts", num_prompts, 4)
    check_whole("prompts_at_once", prompts_at_once, 1)
    check_between("chance", chance, 0, 0.5)
    if num_generations is None:
        return max(2 * int(k), 4)
    n = check_whole("num_generations", num_generations, 2)
    if n <= k:
        raise ValueError(
            f"num_generations={n} must be above k={k}: the weight of a prompt in the pass@k "
            f"gradient needs k+1 rollouts. Best is {max(2 * k, 4)} (2k)."
        )
    return n


def check_sampled(num_generations: Any, num_prompts: Any, prompts_at_once: Any) -> None:
    """How a policy is sampled to be compared.

    Raises:
        ValueError: an argument is unusable.
    """
    check_whole("num_generations", num_generations, 1)
    check_whole("prompts_at_once", prompts_at_once, 1)
    if num_prompts is not None:
        check_whole("num_prompts", num_prompts, 1)


def check_policy(policy: Any) -> None:
    """It must have the methods of a policy.

    Raises:
        ValueError: names those that are missing.
    """
    if missing := lacking(policy):
        raise ValueError(
            f"policy must be one with generate, log_probs and parameters (or gramian), got "
            f"{type(policy).__name__} without {', '.join(missing)}. Of a model and its tokenizer "
            "HFPolicy(model, tokenizer) makes one."
        )


def policy_name(policy: Any) -> str:
    """What to call it: where its model came from, or its class."""
    config = getattr(getattr(policy, "model", None), "config", None)
    return getattr(config, "_name_or_path", "") or type(policy).__name__
