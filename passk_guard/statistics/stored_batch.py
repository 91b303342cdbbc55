"""A batch of stored rollouts, live and in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.group_state import group_state, load_group
from passk_guard.runtime.stored import Unfit, tensor

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
    return {**vars(batch), "groups": [group_state(group) for group in batch.groups]}


def load_batch(stored: Mapping[str, Any]) -> StoredBatch:
    """What :func:`batch_state` gave.

    Raises:
        Unfit: a tensor is of another shape, or not finite.
    """
    groups = [load_group(group) for group in stored["groups"]]
    m = len(groups)
    before = [_scores(one, group) for one, group in zip(stored["before"], groups, strict=True)]
    changes = {name: tensor(stored, name, m) for name in ("change", "change_at_k")}
    credit = {
        name: tensor(stored["credit"], name, m if name in (PASS_AT_1, PASS_AT_K) else len(values))
        for name, values in stored["credit"].items()
    }
    read = {**changes, "groups": groups, "before": before, "credit": credit}
    return StoredBatch(**{**stored, **read})


def _scores(stored: Any, group: RolloutGroup) -> Tensor | None:
    """Log-probs of a group; what they are on padding has no meaning."""
    if stored is None:
        return None
    scores = tensor({"log-probs": stored}, "log-probs", *group.input_ids.shape, finite=False)
    if not bool(scores[group.completion_mask.to(scores.device).bool()].isfinite().all()):
        raise Unfit("log-probs must be finite")
    return scores
