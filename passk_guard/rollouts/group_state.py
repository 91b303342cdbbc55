"""A prompt's rollouts in a checkpoint."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from passk_guard.rollouts.group import RolloutGroup
from passk_guard.runtime.stored import Unfit, row_ids, tensor

__all__ = ["group_state", "load_group"]


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
    }


def load_group(state: Any, rows: int | None = None) -> RolloutGroup:
    """What :func:`group_state` gave.

    Args:
        state: what it gave.
        rows: in the pool, where that is known.

    Raises:
        Unfit: it is not whole, or of a row that is not in the pool.
    """
    ids = tensor(state, "input_ids", None, None, least=0)
    n, length = ids.shape
    if n < 2:
        raise Unfit("a prompt has fewer than 2 rollouts")
    if ids.is_floating_point():
        raise Unfit("input_ids must be whole numbers")
    row = row_ids({"a prompt": [state.get("row")]}, "a prompt", rows)[0]
    return RolloutGroup(
        row=row,
        input_ids=ids,
        attention_mask=tensor(state, "attention_mask", n, length),
        completion_mask=tensor(state, "completion_mask", n, length),
        success=tensor(state, "success", n, least=0),
        advantages=_each(state, "advantages", n),
        rewards=_each(state, "rewards", n),
        sampling_log_probs=None
        if state.get("sampling_log_probs") is None
        else tensor(state, "sampling_log_probs", n, length),
    )


def _each(state: Any, key: str, n: int) -> Tensor | None:
    """A number per rollout where there is one: NaN marks those that got none.

    The first release kept no rewards.
    """
    return None if state.get(key) is None else tensor(state, key, n, finite=False)
