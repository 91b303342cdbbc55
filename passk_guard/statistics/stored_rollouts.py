"""Rollouts that are kept and scored again, and what they have told so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.group_state import group_state, load_group
from passk_guard.rollouts.policy import Policy
from passk_guard.rollouts.scores import score
from passk_guard.runtime.stored import Unfit, tensor
from passk_guard.statistics.paired_drift import PairedChange, paired_change


class StoredRollouts:
    """One look's rollouts with their log-probs, and the change that they told last.

    Args:
        groups: prompts with their rollouts.
        before: their log-probs as sampled, see :func:`~passk_guard.rollouts.scores.score`.
    """

    def __init__(self, groups: Sequence[RolloutGroup], before: Sequence[Tensor | None]) -> None:
        self.groups, self._before = list(groups), list(before)
        m = len(groups)
        self._told = torch.zeros(4, m, dtype=torch.float64, device="cpu")
        self.measured = False

    def __len__(self) -> int:
        return len(self.groups)

    def measure(
        self, policy: Policy, size: PassSize | None = None
    ) -> tuple[Tensor, Tensor, PairedChange] | None:
        """Score them again under the present weights; ``None`` where they say too little by now.

        Returns:
            ``(4, m)`` change, noise, covariance and unseen share of each prompt at the last
            measurement; the same now; the change since the rollouts were sampled.
        """
        after = score(policy, self.groups, size)
        change = paired_change(self.groups, self._before, after)
        return (self._told, _told(change), change) if change.usable else None

    def note(self, change: PairedChange) -> None:
        """What :meth:`measure` found is taken in."""
        self._told = _told(change)
        self.measured = True

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on after a resume, for ``torch.save``."""
        return {
            "groups": [group_state(group) for group in self.groups],
            "before": list(self._before),
            "told": self._told,
            "measured": self.measured,
        }

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> StoredRollouts:
        """From what :meth:`state_dict` gave.

        Raises:
            Unfit: a tensor is of another shape, or not finite.
        """
        groups = [load_group(group) for group in state["groups"]]
        before = zip(state["before"], groups, strict=True)
        found = cls(groups, [_scores(scores, group) for scores, group in before])
        found._told = tensor(state, "told", 4, len(groups))
        found.measured = bool(state["measured"])
        return found


def _told(change: PairedChange) -> Tensor:
    return torch.stack([change.per_prompt, change.noise, change.covariance, 1 - change.seen])


def _scores(stored: Any, group: RolloutGroup) -> Tensor | None:
    """Log-probs of a group; what they are on padding has no meaning."""
    if stored is None:
        return None
    scores = tensor({"log-probs": stored}, "log-probs", *group.input_ids.shape, finite=False)
    if not bool(scores[group.completion_mask.to(scores.device).bool()].isfinite().all()):
        raise Unfit("log-probs must be finite")
    return scores
