"""Fresh batches of verified rollouts of held-out prompts."""

from __future__ import annotations

import numpy as np

from passk_guard.errors import ProbeError
from passk_guard.evidence import usable_groups
from passk_guard.pool import HeldOutPool
from passk_guard.rollouts import Policy, RolloutGroup

__all__ = ["Sampler"]

_SERVED_ROLLOUTS = 4


class Sampler:
    """Draws rows from the pool and has the policy sample and verify them.

    Args:
        policy: samples and verifies.
        pool: held-out prompts.
        prompts: per batch.
        n: rollouts per prompt.
        k: a prompt needs more scorable rollouts than this to be used.
    """

    def __init__(self, policy: Policy, pool: HeldOutPool, prompts: int, n: int, k: int) -> None:
        self._policy, self._pool, self.size = policy, pool, prompts
        self._n, self._k = n, k

    def batch(self) -> tuple[list[RolloutGroup], int]:
        """A fresh batch, without what cannot be scored, and how many rollouts were drawn."""
        groups = self._generate(self._pool.draw(self.size), self._n, None)
        return usable_groups(groups, self._k), sum(group.n for group in groups)

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
        return groups
