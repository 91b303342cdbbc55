"""A batch of stored rollouts, live and in a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from passk_guard.passk import unbiased_prompt_weight
from passk_guard.rollouts.group import RolloutGroup, counts
from passk_guard.rollouts.group_state import group_state, load_group
from passk_guard.runtime.stored import Unfit, flag, items, mapping, number, tensor

__all__ = ["PASS_AT_1", "PASS_AT_K", "StoredBatch", "batch_state", "load_batch", "variance_of_mean"]

PASS_AT_1, PASS_AT_K = "pass_at_1", "pass_at_k"  # what sums are kept of, beside groups


@dataclass
class StoredBatch:
    """Rollouts of some prompts, as they were sampled and scored.

    Attributes:
        groups: the prompts.
        before: their log-probs as sampled; ``None`` where nothing is right.
        change: of each, since sampling, as of the last measurement, ``(m,)``.
        change_at_k: the same of pass@k.
        credit: per quantity, what each prompt has put into the sum so far, ``(m,)``.
        reference: kept for as long as it can be used.
        latest: no newer batch has been sampled.
        left: of the variance of its sums, the share that a finite pool leaves.
    """

    groups: list[RolloutGroup]
    before: list[Tensor | None]
    change: Tensor
    change_at_k: Tensor
    credit: dict[str, Tensor]
    reference: bool
    latest: bool = True
    left: float = 1.0

    def variance(self, name: str) -> float:
        """Of the mean of what its prompts have put into a sum."""
        return self.left * variance_of_mean(self.credit[name])


def variance_of_mean(values: Tensor) -> float:
    """Of one prompt's value alone: its square, taken as mean zero, and a little more."""
    if len(values) > 1:
        return float(values.var() / len(values))
    return float(values.square().sum()) + 0.02**2


def batch_state(batch: StoredBatch) -> dict[str, Any]:
    """For ``torch.save``."""
    return {
        "groups": [group_state(group) for group in batch.groups],
        "before": list(batch.before),
        "change": batch.change,
        "change_at_k": batch.change_at_k,
        "credit": dict(batch.credit),
        "reference": batch.reference,
        "latest": batch.latest,
        "left": batch.left,
    }


def load_batch(stored: Any, rows: int | None, k: int) -> StoredBatch:
    """What :func:`batch_state` gave.

    Args:
        stored: what it gave.
        rows: in the pool, where that is known.
        k: of pass@k, whose change older states have only as that of pass@1.

    Raises:
        Unfit: it is not whole, or of rows that are not in the pool.
    """
    groups = [load_group(group, rows) for group in items(stored, "groups")]
    if not groups:
        raise Unfit("a batch holds no prompts")
    before, change = items(stored, "before", len(groups)), tensor(stored, "change", len(groups))
    correct, n = counts(groups)
    sums = mapping(stored, "credit")
    of_all = (PASS_AT_1, PASS_AT_K)
    return StoredBatch(
        groups=groups,
        before=[_scores(scores, group) for scores, group in zip(before, groups, strict=True)],
        change=change,
        change_at_k=tensor(stored, "change_at_k", len(groups))
        if "change_at_k" in stored
        else change * torch.from_numpy(unbiased_prompt_weight(correct, n, min(k, min(n) - 1))),
        # Of how many prompts a group consists is seen once it is known to be one:
        # RolloutStore.check_groups.
        credit={n: tensor(sums, n, len(groups) if n in of_all else None) for n in sums},
        reference=flag(stored, "reference"),
        latest=flag(stored, "latest"),
        left=number(stored, "left", 0, 1) if "left" in stored else 1.0,
    )


def _scores(stored: Any, group: RolloutGroup) -> Tensor | None:
    """Log-probs of a group; what they are on padding has no meaning.

    Those of prompts that are always right are not in older states.
    """
    if stored is None and not group.has_signal:
        return None
    scores = tensor({"log-probs": stored}, "log-probs", *group.input_ids.shape, finite=False)
    if not bool(scores[group.completion_mask.to(scores.device).bool()].isfinite().all()):
        raise Unfit("log-probs must be finite, got some that are not")
    return scores
