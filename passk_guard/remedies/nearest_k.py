"""The k that comes nearest to a share λ of pass@1, and the share that a k amounts to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from passk_guard.objectives.live import LiveObjective

__all__ = ["NearestK"]

Counts = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class NearestK:
    """Chooses k by its prompt weights, over the counts that were last seen.

    An update is its prompt weights on the per-prompt gradients, and its direction matters: the size
    of a step is the optimizer's affair. So k is taken where the vector of weights ``w_k`` makes the
    smallest angle with ``(1-λ) w_K + λ``; every prompt counts by its gradient's mean square, which
    is proportional to ``c (n - c)``.

    Attributes:
        most: K, the k that the user chose.
        weights: ``(K, m)`` of the objective at k = 1 ... K, root gradient sizes multiplied in; a
            fractional K has its own in the last row.
        ks: ``(K,)`` what the rows belong to.
    """

    most: float
    weights: np.ndarray
    ks: np.ndarray

    @classmethod
    def over(cls, objective: LiveObjective, most: float, counts: Counts) -> NearestK | None:
        """From an objective's own prompt weights, k and λ left as they are.

        Args:
            objective: whose.
            most: K.
            counts: right rollouts and all rollouts of each prompt.

        Returns:
            ``None`` where no two prompts differ in how w_K weighs them: all k are the same then.
        """
        seen = Counter((c, n) for c, n in counts if 0 < c < n)
        size = np.sqrt([times * c * (n - c) / n**2 for (c, n), times in seen.items()])
        ks = np.array([*range(1, int(np.ceil(most))), most], float)
        before = objective.k, objective.pass1_weight
        rows = []
        try:
            objective.pass1_weight = 0.0
            for k in ks:
                objective.k = float(k)
                rows.append([objective.prompt_weight(c, n, None, None) for c, n in seen])
        finally:
            objective.k, objective.pass1_weight = before
        found = np.array(rows, float)
        if found.shape[1] < 2 or np.ptp(found[-1]) <= 1e-9 * np.abs(found).max():
            return None
        return cls(most, found * size, ks)

    def k(self, share: float) -> float:
        """The k in [1, K] for a share λ of pass@1.

        Between two neighbours ``u, v`` with ``d = v - u`` and the aim m, the angle of ``u + f d``
        is stationary at ``f = (u·m u·d - d·m u·u) / (d·m u·d - u·m d·d)``.
        """
        if share <= 0.0:
            return self.most
        aim = (1 - share) * self.weights[-1] + share * self.weights[0]
        best, nearest = float(self.ks[-1]), _cosine(self.weights[-1], aim)
        for i in range(len(self.ks) - 1):
            u, v = self.weights[i], self.weights[i + 1]
            d = v - u
            above = (u @ aim) * (u @ d) - (d @ aim) * (u @ u)
            below = (d @ aim) * (u @ d) - (u @ aim) * (d @ d)
            inside = min(max(above / below, 0.0), 1.0) if below else 0.0
            for f in (0.0, inside):
                if (found := _cosine(u + f * d, aim)) > nearest + 1e-12:
                    nearest = found
                    best = float(self.ks[i] + f * (self.ks[i + 1] - self.ks[i]))
        return best

    def share(self, k: float) -> float:
        """λ in force at k: that of the least-squares fit of w_k by w_K and 1."""
        at = int(np.clip(np.searchsorted(self.ks, k, side="right") - 1, 0, len(self.ks) - 2))
        f = (k - self.ks[at]) / (self.ks[at + 1] - self.ks[at])
        weights = (1 - f) * self.weights[at] + f * self.weights[at + 1]
        basis = np.stack([self.weights[-1], self.weights[0]], axis=1)
        (own, pass1), *_ = np.linalg.lstsq(basis, weights, rcond=None)
        return float(np.clip(pass1 / (own + pass1), 0.0, 1.0)) if own + pass1 > 0 else 1.0


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm else -1.0
