"""What a TRL trainer's generation gives, as groups of rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from passk_guard.rollouts.group import RolloutGroup, packed

__all__ = ["Rollout", "grouped", "unpadded"]


class Rollout(NamedTuple):
    """One rollout without padding, for the other processes.

    Attributes:
        prompt: token ids.
        completion: token ids.
        sampled: which of them the policy sampled.
        advantage: that the trainer would give it.
        log_probs: of the completion, as an engine has them that told.
    """

    prompt: list[int]
    completion: list[int]
    sampled: list[int]
    advantage: float
    log_probs: list[float] | None


def unpadded(output: Mapping[str, Tensor], told: bool) -> list[Rollout]:
    """Of this process.

    Args:
        output: of the trainer's ``_generate_and_score_completions``.
        told: whether an engine's log-probs are of what a probe samples from.
    """
    output = {k: v.cpu() for k, v in output.items() if isinstance(v, Tensor)}
    sampled = output["completion_mask"]
    if "tool_mask" in output:
        sampled = sampled * output["tool_mask"]
    log_probs = output.get("sampling_per_token_logps") if told else None
    rollouts = []
    for i in range(len(sampled)):
        prompt = output["prompt_ids"][i][output["prompt_mask"][i].bool()]
        present = output["completion_mask"][i].bool()
        completion = output["completion_ids"][i][present]
        rollouts.append(
            Rollout(
                prompt.tolist(),
                completion.tolist(),
                sampled[i][present].tolist(),
                float(output["advantages"][i]),
                None if log_probs is None else log_probs[i][present].tolist(),
            )
        )
    return rollouts


def grouped(
    row: int, rollouts: Sequence[Rollout], success: Tensor, rewards: Tensor
) -> RolloutGroup:
    """The rollouts of one row."""
    prompts, completions, sampled, advantages, log_probs = zip(*rollouts, strict=True)
    tokens = packed(prompts, completions, sampled)
    told = None
    if all(values is not None for values in log_probs):
        told = torch.full(tokens[0].shape, torch.nan)
        for i, (prompt, values) in enumerate(zip(prompts, log_probs, strict=True)):
            told[i, len(prompt) : len(prompt) + len(values)] = torch.tensor(values)
    return RolloutGroup(
        row, *tokens, success, torch.tensor(advantages), rewards, sampling_log_probs=told
    )
