"""Verified rollouts of held-out prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from passk_guard.errors import ProbeError, warn
from passk_guard.prompts.pool import HeldOutPool
from passk_guard.rollouts.group import RolloutGroup, Truncation, truncation
from passk_guard.rollouts.policy import Policy
from passk_guard.runtime.processes import world

CHUNK = 64  # prompts
_SERVED_ROLLOUTS = 4
_MOST_NAMED = 10


class FitRows:
    """Leaves out rows that a policy with an ``unfit`` method cannot sample, and says so once.

    One such row would cost the whole batch. All processes leave out the same: a row's fitness is a
    matter of the row. Only when a batch has one are all rows looked through.

    Args:
        policy: samples; may lack the method.
        pool: of the rows.
        batch: rows of a batch.
        name: of the argument that the rows came in as.

    Raises:
        ValueError: none of the first batch's rows can be sampled.
    """

    def __init__(self, policy: Policy, pool: HeldOutPool, batch: int, name: str) -> None:
        self._policy, self._pool, self._name = policy, pool, name
        self._left_out: frozenset[int] | None = None
        first = self._unfit(range(min(batch, len(pool))))
        if len(first) == min(batch, len(pool)):
            raise ValueError(
                f"None of the first {len(first)} rows of {name} can be sampled. Row 0 {first[0]}."
            )

    def __call__(self, row_ids: Sequence[int]) -> list[int]:
        """The fit ones among them, in their order."""
        if self._left_out is None and self._unfit(row_ids):
            found = self._unfit(range(len(self._pool)))
            self._left_out = frozenset(found)
            if world()[0] == 0:
                self._say(found)
        return [i for i in row_ids if i not in (self._left_out or ())]

    def _unfit(self, row_ids: Sequence[int]) -> dict[int, str]:
        """Rows that cannot be sampled, and why."""
        unfit = getattr(self._policy, "unfit", None)
        if unfit is None:
            return {}
        reasons = unfit([self._pool.rows[i] for i in row_ids])
        return {i: why for i, why in zip(row_ids, reasons, strict=True) if why is not None}

    def _say(self, found: dict[int, str]) -> None:
        named = ", ".join(map(str, list(found)[:_MOST_NAMED]))
        more = len(found) - _MOST_NAMED
        row, why = next(iter(found.items()))
        warn(
            f"{len(found)} of {len(self._pool)} rows of {self._name} cannot be sampled and are "
            f"left out: row {named}{f' and {more} more' if more > 0 else ''}. Row {row} {why}. "
            "Fix, shorten or remove them."
        )


class Batch(NamedTuple):
    """What was drawn.

    Attributes:
        groups: without what cannot be scored.
        drawn: rollouts, those included.
        truncation: of all of them.
        weights: ``(m,)`` of the groups' prompts, 1 on the mean.
    """

    groups: list[RolloutGroup]
    drawn: int
    truncation: Truncation | None
    weights: np.ndarray


class Sampler:
    """Has the policy sample and verify rollouts of the reference's prompts.

    Args:
        policy: samples and verifies.
        pool: held-out prompts.
        prompts: in the reference.
        k: a prompt needs more scorable rollouts than this to be in the reference.

    Raises:
        ValueError: the policy cannot sample these prompts.
    """

    def __init__(self, policy: Policy, pool: HeldOutPool, prompts: int, k: int) -> None:
        self._policy, self._pool, self._k = policy, pool, k
        self._ids, weights = pool.reference(prompts)
        self._weight = dict(zip(self._ids, weights.tolist(), strict=True))
        self._fit = FitRows(policy, pool, CHUNK, "prompts")

    def reference(self, n: int, chunks: Callable[[int, int], int] = lambda done, of: of) -> Batch:
        """``n`` rollouts of each prompt, without prompts left with too few to be measured.

        Args:
            n: rollouts per prompt.
            chunks: told how many chunks of prompts are done, and of how many; gives how many there
                are to be. A run may be too short for all.
        """
        ids = self._fit(self._ids)
        parts = [ids[i : i + CHUNK] for i in range(0, len(ids), CHUNK)]
        groups: list[RolloutGroup] = []
        for done, part in enumerate(parts):
            if done >= chunks(done, len(parts)):
                break
            groups += self._generate(part, n, None)
        return self._batch(groups, usable_groups(groups, self._k))

    def again(self, rows: Sequence[int], n: int) -> Batch:
        """``n`` fresh rollouts of these prompts.

        Raises:
            ProbeError: less than half of the prompts have a scored one.
        """
        groups = self._generate(list(rows), n, None)
        kept = [group for group in (g.scorable() for g in groups) if group.n]
        if 2 * len(kept) < len(groups):
            total, scored = sum(g.n for g in groups), sum(g.n for g in kept)
            raise ProbeError(
                f"only {len(kept)} of {len(groups)} prompts have a scored rollout: the verifier "
                f"scored {scored} of {total} (None and NaN count as unscorable)"
            )
        return self._batch(groups, kept)

    def _batch(self, groups: Sequence[RolloutGroup], kept: list[RolloutGroup]) -> Batch:
        # Of rows that a resumed run goes on with the levels know the weights.
        weights = np.array([self._weight.get(group.row, 1.0) for group in kept])
        drawn = sum(group.n for group in groups)
        return Batch(kept, drawn, truncation(groups), weights / weights.mean())

    def served(self, row_ids: list[int], temperature: float) -> float:
        """Pass@1 of the same rows at the temperature that production serves.

        Greedy decoding gives one answer per prompt; else a few rollouts each.
        """
        n = 1 if temperature == 0 else _SERVED_ROLLOUTS
        groups = [g.scorable() for g in self._generate(row_ids, n, temperature)]
        rates = [group.correct / group.n for group in groups if group.n]
        if not rates:
            raise ProbeError("the verifier scored no rollout at report_temperature")
        return float(np.mean(rates))

    def _generate(
        self, row_ids: list[int], n: int, temperature: float | None
    ) -> list[RolloutGroup]:
        rows = [self._pool.rows[i] for i in row_ids]
        if temperature is None:
            groups = self._policy.generate(rows, row_ids, n)
        else:
            groups = self._policy.generate(rows, row_ids, n, temperature)
        short = next((group for group in groups if group.n != n), None)
        if len(groups) != len(row_ids) or short is not None:
            got = f"{len(groups)} groups" if short is None else f"a group of {short.n}"
            raise ProbeError(
                f"the policy gave {got} for {len(row_ids)} prompts x {n} rollouts asked for"
            )
        return [group.on_cpu() for group in groups]


def usable_groups(groups: Sequence[RolloutGroup], k: int) -> list[RolloutGroup]:
    """Drop unscorable rollouts, and prompts left with too few for ``k``.

    Raises:
        ProbeError: fewer than 4 prompts are left.
    """
    kept = [group.scorable() for group in groups]
    kept = [group for group in kept if group.n > k]
    if len(kept) < 4:
        scored = sum(group.scorable().n for group in groups)
        total = sum(group.n for group in groups)
        raise ProbeError(
            f"only {len(kept)} of {len(groups)} prompts have more than k={k} scored rollouts: the "
            f"verifier scored {scored} of {total} (None and NaN count as unscorable)"
        )
    return kept
