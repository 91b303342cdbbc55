"""What is probed, checked before anything is sampled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from passk_guard.checks import check_between, check_column, check_threshold, check_whole
from passk_guard.rollouts.hf_policy import HFPolicy
from passk_guard.rollouts.policy import lacking
from passk_guard.rollouts.verifier import check_verifier, choose_verifier

FEWEST = 4
"""Prompts: the variance of what pairs of them say needs as many."""


def check_run(
    prompts_at_once: Any, threshold: Any, group_by: Any, seed: Any, micro_batch: Any
) -> None:
    """How a policy is sampled and verified, and scored.

    Raises:
        ValueError: an argument is unusable.
    """
    check_whole("prompts_at_once", prompts_at_once, 1)
    check_threshold(threshold)
    check_column("group_by", group_by)
    check_whole("seed", seed, 0)
    if micro_batch is not None:
        check_whole("micro_batch", micro_batch, 1)


def check_probe(k: Any, num_generations: Any, num_prompts: Any, chance: Any) -> int:
    """Rollouts per prompt.

    Raises:
        ValueError: an argument is unusable.
    """
    check_whole("k", k, 1)
    check_whole("num_prompts", num_prompts, FEWEST)
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


def checked_verifier(verifier: Any, row: Mapping[str, Any]) -> Any:
    """The function that decides; ``None`` where the policy verifies by itself.

    Args:
        verifier: what the user gave.
        row: the first of the held-out rows.

    Raises:
        ValueError: it cannot be called with such rows.
    """
    if verifier is None:
        return None
    verifier = choose_verifier(verifier, None)
    if not callable(verifier):
        raise ValueError(
            f"verifier must be a function f(prompts, completions, **columns), got {verifier!r}."
        )
    check_verifier(verifier, set(row))
    return verifier


def check_policy(policy: Any, verifier: Any) -> None:
    """It must have the methods of a policy, and somebody must verify.

    Raises:
        ValueError: names what is missing.
    """
    if missing := lacking(policy):
        raise ValueError(
            f"policy must be one with generate, log_probs and parameters (or gramian), got "
            f"{type(policy).__name__} without {', '.join(missing)}. Of a model and its tokenizer "
            "HFPolicy(model, tokenizer) makes one."
        )
    named = iter(policy.parameters() if hasattr(policy, "parameters") else ())
    first = next(named, ("", None))
    if not (isinstance(first, tuple) and len(first) == 2):
        raise ValueError(
            f"policy.parameters() must give pairs of name and parameter, as a module's "
            f"named_parameters() does, got {type(first).__name__}."
        )
    if verifier is None and isinstance(policy, HFPolicy):
        raise ValueError(
            "verifier is missing: HFPolicy samples, but does not know what is right. Give "
            "f(prompts, completions, **columns) -> list of scores."
        )


def policy_name(policy: Any) -> str:
    """What to call it: where its model came from, or its class."""
    config = getattr(getattr(policy, "model", None), "config", None)
    return getattr(config, "_name_or_path", "") or type(policy).__name__
