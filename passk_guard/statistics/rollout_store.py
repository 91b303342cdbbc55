"""Stored rollouts, scored again now and then: the drift of pass@1 with an honest error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.policy import Policy
from passk_guard.rollouts.scores import score
from passk_guard.runtime.progress import Progress, silent
from passk_guard.runtime.stored import Stored
from passk_guard.statistics.paired_drift import PairedChange, paired_change
from passk_guard.statistics.stored_batch import (
    PASS_AT_1,
    PASS_AT_K,
    StoredBatch,
    batch_state,
    load_batch,
    variance_of_mean,
)

_NEAR = 0.9  # effective sample size


@dataclass(frozen=True)
class Drift:
    """Change of pass@1 (or of pass@k) since the last measurement.

    Attributes:
        change: the estimate, pooled over all stored prompts.
        se: its standard error.
        added_variance: by how much this increment raises the variance of all increments' sum.
            More than ``se²`` where the same prompts were measured before: their errors add up.
        prompts: that it rests on.
        extreme: share of the latest batch's tokens with a ratio outside [1/5, 5].
        usable: ``False`` where no batch gave an estimate.
    """

    change: float
    se: float
    added_variance: float
    prompts: int
    extreme: float
    usable: bool


class RolloutStore(Stored):
    """The reference, and later batches in its room as the exact estimate no longer holds on it.

    Every prompt's increments enter the pooled increment with the weight of its batch, and are
    summed up per prompt, so that the variance of the *sum* over the run is known although the same
    prompts serve several increments. Of a finite pool only what is noise within prompts, and what
    prompts that are not stored may do, is left of it: ``within + (1 - within)(1 - stored / pool)``.

    One forward pass serves several quantities: pass@1, pass@k (``w_k(p) Δp``: first order in Δp),
    and pass@1 within each group of prompts.

    Args:
        k: of pass@k.
        label_of: the group that a row belongs to; ``None`` where there are no groups.
        pool: prompts that batches are drawn from without replacement; ``None`` for any number.
    """

    _stored = ("_room", "_settled", "_variance")

    def __init__(
        self,
        k: int = 1,
        label_of: Callable[[int], str] | None = None,
        pool: int | None = None,
    ) -> None:
        self._k = k
        self._label_of = label_of
        self._pool = pool
        self._room = 0  # prompts
        self._batches: list[StoredBatch] = []
        self._settled: dict[str, float] = {}  # variance left by batches that have gone
        self._variance: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._batches)

    def add(
        self,
        batches: Sequence[tuple[Sequence[RolloutGroup], Sequence[Tensor | None]]],
        *,
        reference: bool = False,
    ) -> None:
        """Store what was just sampled, in place of the latest batch.

        Args:
            batches: each ``m`` prompts with their log-probs as
                :func:`~passk_guard.rollouts.scores.score` gave them.
            reference: keep them, and whatever is stored, for as long as they can be used.
        """
        for batch in self._batches:
            batch.latest = False
        for groups, log_probs in batches:
            zeros = torch.zeros(len(groups), dtype=torch.float64, device="cpu")
            self._batches.append(
                StoredBatch(list(groups), list(log_probs), zeros, zeros, {}, reference)
            )
        latest = self._prompts(self._batches[-len(batches) :])
        if reference:
            self._room = self._prompts(self._batches) + latest // len(batches)
        for batch in [b for b in self._batches if not (b.reference or b.latest)]:
            if self._prompts(self._batches) > self._room:
                self._drop(batch)

    @staticmethod
    def _prompts(batches: Sequence[StoredBatch]) -> int:
        return sum(len(batch.groups) for batch in batches)

    def measure(
        self,
        policy: Policy,
        size: PassSize | None = None,
        progress: Progress = silent,
    ) -> dict[str, Drift]:
        """Score everything again under the present weights.

        All or nothing: if scoring raises, the store is as it was.

        Returns:
            The drift by quantity: ``"pass_at_1"``, ``"pass_at_k"`` and each group's label. Empty
            while nothing is stored; a group without stored prompts is left out.
        """
        if not self._batches:
            return {}
        changes = []
        for i, b in enumerate(self._batches):
            progress("scoring again", i, len(self._batches))
            after = score(policy, b.groups, size)
            changes.append(paired_change(b.groups, b.before, after, self._k))
        latest = changes[-1]
        used: list[tuple[StoredBatch, PairedChange]] = []
        for batch, change in zip(self._batches, changes, strict=True):
            # First order is for one interval only: up to the next fresh batch.
            if change.usable and (change.exact or batch.latest):
                used.append((batch, change))
            elif not batch.latest:
                self._drop(batch)
        if not used:
            nothing = Drift(0.0, 0.0, 0.0, 0, latest.extreme, usable=False)
            return {PASS_AT_1: nothing, PASS_AT_K: nothing}
        rows = {group.row for batch, _ in used for group in batch.groups}
        outside = 1.0 if self._pool is None else max(1 - len(rows) / self._pool, 0.0)
        for batch, change in used:
            # As ratios spread, the noise within prompts is more than what can be seen of it.
            near = change.effective_sample_size > _NEAR
            batch.left = change.within + (1 - change.within) * outside if near else 1.0
        steps = [self._steps(batch, change) for batch, change in used]
        names = dict.fromkeys(name for of_batch in steps for name in of_batch)
        drifts = {}
        for name in names:
            parts = [
                (batch, of_batch[name])
                for (batch, _), of_batch in zip(used, steps, strict=True)
                if name in of_batch
            ]
            drifts[name] = self._increment(name, parts, latest)
        for batch, change in used:
            batch.change, batch.change_at_k = change.per_prompt, change.per_prompt_at_k
        return drifts

    def _steps(self, batch: StoredBatch, change: PairedChange) -> dict[str, Tensor]:
        """By name: how far each prompt that counts has moved since the last measurement."""
        one = change.per_prompt - batch.change
        steps = {PASS_AT_1: one, PASS_AT_K: change.per_prompt_at_k - batch.change_at_k}
        return steps | {label: one[at] for label, at in self._members(batch.groups).items()}

    def _members(self, groups: Sequence[RolloutGroup]) -> dict[str, list[int]]:
        """By label: places of its prompts."""
        if self._label_of is None:
            return {}
        labels = [self._label_of(group.row) for group in groups]
        return {
            label: [i for i, other in enumerate(labels) if other == label]
            for label in sorted(set(labels))
        }

    def _increment(
        self,
        name: str,
        parts: Sequence[tuple[StoredBatch, Tensor]],
        latest: PairedChange,
    ) -> Drift:
        total = sum(len(step) for _, step in parts)
        increment = variance = 0.0
        for batch, step in parts:
            share = len(step) / total
            increment += share * float(step.mean())
            variance += share**2 * batch.left * variance_of_mean(step)
            batch.credit[name] = batch.credit.get(name, torch.zeros_like(step)) + share * step
        before = self._variance.get(name, 0.0)
        live = sum(b.variance(name) for b in self._batches if name in b.credit)
        self._variance[name] = self._settled.get(name, 0.0) + live
        return Drift(
            change=increment,
            se=variance**0.5,
            added_variance=max(self._variance[name] - before, 0.0),
            prompts=total,
            extreme=latest.extreme,
            usable=True,
        )

    def _drop(self, batch: StoredBatch) -> None:
        for name in batch.credit:
            self._settled[name] = self._settled.get(name, 0.0) + batch.variance(name)
        self._batches = [b for b in self._batches if b is not batch]

    def forget(self, kept: Callable[[str], bool]) -> None:
        """Start the sums of some quantities afresh; the rollouts stay.

        Args:
            kept: whether a quantity's are kept, by name.
        """
        self._settled = {name: v for name, v in self._settled.items() if kept(name)}
        self._variance = {name: v for name, v in self._variance.items() if kept(name)}
        for batch in self._batches:
            batch.credit = {name: v for name, v in batch.credit.items() if kept(name)}

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on after a resume, for ``torch.save``."""
        return {**super().state_dict(), "batches": [batch_state(b) for b in self._batches]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave.

        Raises:
            Unfit: a batch is damaged.
        """
        super().load_state_dict(state)
        self._batches = [load_batch(stored) for stored in state["batches"]]
