"""A prompt's rollouts in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from passk_guard.rollouts.group import RolloutGroup
from passk_guard.runtime.stored import tensor


def group_state(group: RolloutGroup) -> dict[str, Any]:
    """A verified group for ``torch.save``; completions serve the verifier alone."""
    return {
        "row": group.row,
        "input_ids": group.input_ids,
        "attention_mask": group.attention_mask,
        "completion_mask": group.completion_mask,
        "success": group.success,
        "advantages": group.advantages,
        "rewards": group.rewards,
        "sampling_log_probs": group.told,
        "truncated": group.truncated,
        "baseline": group.baseline,
    }


def load_group(state: Mapping[str, Any]) -> RolloutGroup:
    """What :func:`group_state` gave.

    Raises:
        Unfit: a tensor is of another shape, or not finite.
    """
    n, _ = shape = state["input_ids"].shape
    told, rewards, cut = (state[k] for k in ("sampling_log_probs", "rewards", "truncated"))
    return RolloutGroup(
        row=state["row"],
        input_ids=state["input_ids"],
        attention_mask=tensor(state, "attention_mask", *shape),
        completion_mask=tensor(state, "completion_mask", *shape),
        success=tensor(state, "success", n),
        # NaN marks the rollouts that got none.
        advantages=None
        if state["advantages"] is None
        else tensor(state, "advantages", n, finite=False),
        rewards=None if rewards is None else tensor(state, "rewards", n, finite=False),
        sampling_log_probs=None if told is None else tensor(state, "sampling_log_probs", *shape),
        truncated=None if cut is None else tensor(state, "truncated", n),
        baseline=state["baseline"],
    )
