"""What a policy really solves: many samples of a test set that nothing else sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from passk_guard import HFPolicy
from passk_guard.rollouts.verified_policy import VerifiedPolicy


def solved(
    model: Any, tokenizer: Any, task: Any, rows: Sequence[dict[str, Any]], n: int, seed: int
) -> np.ndarray:
    """``(rows,)`` right ones of n samples each; leaves no trace in the generators."""
    policy = HFPolicy(model, tokenizer, max_completion_length=task.longest, rollouts_at_once=512)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["solution"]))  # little is padding
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        groups = VerifiedPolicy(policy, task.verify).generate([rows[i] for i in order], order, n)
    counts = {group.row: int(group.success.sum()) for group in groups}
    return np.array([counts[i] for i in range(len(rows))])
