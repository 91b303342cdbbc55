"""What a TRL trainer's generation gives, as groups of rollouts."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from passk_guard.rollouts.group import RolloutGroup, beside, packed
from passk_guard.rollouts.recorded_sampling import Sampled


class Rollout(NamedTuple):
    """One rollout without padding, for the other processes.

    Attributes:
        prompt: token ids.
        completion: token ids.
        sampled: 1 for each token that the policy sampled.
        advantage: the trainer's advantage.
        log_probs: the completion's, as reported by whatever sampled it, if it does.
        truncated: whether the length limit cut it.
    """

    prompt: list[int]
    completion: list[int]
    sampled: list[int]
    advantage: float
    log_probs: list[float] | None
    truncated: bool


def unpadded(
    output: Mapping[str, Tensor],
    answers: Sequence[Any] | None,
    calls: Sequence[Sampled] = (),
    ends: Collection[int] = (),
    longest: int = 0,
) -> list[Rollout]:
    """Of this process.

    Args:
        output: what the trainer's ``_generate_and_score_completions`` gave.
        answers: log-probs that an engine gave in each call; ``None`` where they are not of what a
            probe samples from.
        calls: calls of the model's own ``generate``; of several, which tools make, none is taken.
        ends: tokens that end a completion.
        longest: tokens that a completion may have.
    """
    output = {k: v.cpu() for k, v in output.items() if isinstance(v, Tensor)}
    sampled = output["completion_mask"]
    if "tool_mask" in output:
        sampled = sampled * output["tool_mask"]
    told = None if answers is None else output.get("sampling_per_token_logps")
    single = answers[0] if answers is not None and len(answers) == 1 else None
    rollouts = []
    for i in range(len(sampled)):
        prompt = output["prompt_ids"][i][output["prompt_mask"][i].bool()]
        present = output["completion_mask"][i].bool()
        completion = output["completion_ids"][i][present].tolist()
        log_probs = (
            _of_one(single, i, len(completion)) if told is None else told[i][present].tolist()
        )
        if len(calls) == 1:
            log_probs = calls[0].of(i, completion)
        rollouts.append(
            Rollout(
                prompt.tolist(),
                completion,
                sampled[i][present].tolist(),
                float(output["advantages"][i]),
                log_probs,
                len(completion) >= longest and completion[-1] not in ends,
            )
        )
    return rollouts


def _of_one(answer: Any, i: int, length: int) -> list[float] | None:
    """A rollout's log-probs in the engine's only answer, where they are its tokens'."""
    if answer is None or i >= len(answer) or len(answer[i]) != length:
        return None
    return [math.nan if likeliest[0] is None else likeliest[0] for likeliest in answer[i]]


def grouped(
    row: int, rollouts: Sequence[Rollout], success: Tensor, rewards: Tensor
) -> RolloutGroup:
    """The rollouts of one row."""
    prompts, completions, sampled, advantages, log_probs, truncated = zip(*rollouts, strict=True)
    tokens = packed(prompts, completions, sampled)
    told = beside(tokens[0], prompts, log_probs)
    return RolloutGroup(
        row,
        *tokens,
        success,
        torch.tensor(advantages, dtype=torch.float32, device="cpu"),
        rewards,
        sampling_log_probs=told,
        truncated=torch.tensor(truncated, device="cpu"),
    )
