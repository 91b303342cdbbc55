"""Stored rollouts, scored again at every probe: the drift of pass@1 with an honest error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from passk_guard.drift import PairedChange, paired_change, score
from passk_guard.rollouts import Policy, RolloutGroup

__all__ = ["Drift", "RolloutStore"]


@dataclass(frozen=True)
class Drift:
    """Change of pass@1 since the last probe.

    Attributes:
        change: the estimate, pooled over all stored prompts.
        se: its standard error.
        added_variance: by how much this increment raises the variance of all increments' sum.
            More than ``se²`` where the same prompts were measured before: their errors add up.
        prompts: that it rests on.
        exact: whether every batch allowed the exact form.
        effective_sample_size: of the latest batch's sequence ratios.
        extreme: share of that batch's tokens with a ratio outside [1/5, 5].
        usable: ``False`` where no batch gave an estimate.
    """

    change: float
    se: float
    added_variance: float
    prompts: int
    exact: bool
    effective_sample_size: float
    extreme: float
    usable: bool


@dataclass
class _Batch:
    groups: list[RolloutGroup]
    before: list[Tensor | None]
    change: Tensor  # (m,) since sampling, as of the last probe
    credit: Tensor  # (m,) what each prompt has put into the sum of all increments
    reference: bool
    fresh: bool = True  # not measured yet


class RolloutStore:
    """The latest batch, and those of the reference while the exact estimate still holds on them.

    Every prompt's increments enter the pooled increment with the weight of its batch, and are
    summed up per prompt, so that the variance of the *sum* over the run is known although the same
    prompts serve several increments. Keeping more than the latest and the reference would not pay:
    in the long run that variance depends on how many prompts were ever drawn, not on how often
    each is scored.
    """

    def __init__(self) -> None:
        self._batches: list[_Batch] = []
        self._settled = 0.0  # variance left by batches that have gone
        self._variance = 0.0

    def __len__(self) -> int:
        return len(self._batches)

    def add(
        self,
        groups: Sequence[RolloutGroup],
        log_probs: Sequence[Tensor | None],
        *,
        reference: bool = False,
    ) -> None:
        """Store a batch just sampled, with its log-probs, in place of the latest one.

        Args:
            groups: ``m`` prompts.
            log_probs: as :func:`~passk_guard.drift.score` gave them.
            reference: keep it, and whatever is stored, for as long as it can be used.
        """
        for batch in self._batches:
            if not reference and not batch.reference:
                self._drop(batch)
        zeros = torch.zeros(len(groups), dtype=torch.float64)
        batch = _Batch(list(groups), list(log_probs), zeros, zeros.clone(), reference)
        self._batches.append(batch)

    def measure(self, policy: Policy, rollouts_per_forward: int | None = None) -> Drift | None:
        """Score everything again under the present weights; ``None`` while nothing is stored.

        All or nothing: if scoring raises, the store is as it was.
        """
        if not self._batches:
            return None
        changes = [
            paired_change(b.groups, b.before, score(policy, b.groups, rollouts_per_forward))
            for b in self._batches
        ]
        latest = changes[-1]
        ess, extreme = latest.effective_sample_size, latest.extreme
        used: list[tuple[_Batch, PairedChange]] = []
        for batch, change in zip(self._batches, changes, strict=True):
            # First order is for one interval only: from the sampling of the rollouts to here.
            if change.usable and (change.exact or batch.fresh):
                used.append((batch, change))
            else:
                self._drop(batch)
            batch.fresh = False
        if not used:
            return Drift(0.0, 0.0, 0.0, 0, True, ess, extreme, usable=False)
        total = sum(len(batch.groups) for batch, _ in used)
        increment = variance = 0.0
        for batch, change in used:
            share = len(batch.groups) / total
            step = change.per_prompt - batch.change
            batch.change = change.per_prompt
            batch.credit = batch.credit + share * step
            increment += share * float(step.mean())
            variance += share**2 * _variance_of_mean(step)
        before, self._variance = self._variance, self._settled + self._live_variance()
        return Drift(
            change=increment,
            se=variance**0.5,
            added_variance=max(self._variance - before, 0.0),
            prompts=total,
            exact=all(change.exact for _, change in used),
            effective_sample_size=ess,
            extreme=extreme,
            usable=True,
        )

    def _drop(self, batch: _Batch) -> None:
        self._settled += _variance_of_mean(batch.credit)
        self._batches = [b for b in self._batches if b is not batch]

    def _live_variance(self) -> float:
        return sum(_variance_of_mean(batch.credit) for batch in self._batches)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on after a resume, for ``torch.save``."""
        return {
            "batches": [
                {**vars(batch), "groups": [vars(group) for group in batch.groups]}
                for batch in self._batches
            ],
            "settled": self._settled,
            "variance": self._variance,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        self._batches = [
            _Batch(**{**batch, "groups": [RolloutGroup(**g) for g in batch["groups"]]})
            for batch in state["batches"]
        ]
        self._settled, self._variance = state["settled"], state["variance"]


def _variance_of_mean(values: Tensor) -> float:
    return float(values.var() / len(values)) if len(values) > 1 else 0.25
