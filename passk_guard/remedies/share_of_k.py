"""The share λ of pass@1 that a k amounts to, and the k for a share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from passk_guard.objectives.live import LiveObjective

Counts = Sequence[tuple[int, int]]
"""Right rollouts and all rollouts of each prompt."""

_HALVINGS = 40


@dataclass(frozen=True)
class ShareOfK:
    """By prompt weights, over the counts that were last seen.

    Pass@k at a lower k is no mix of pass@K and pass@1, but there is a mix that comes nearest to it:
    the least-squares fit of its prompt weights, ``w_k ≈ α w_K + β w_1``, is one with λ = β/(α + β)
    up to the step's size, which is the optimizer's affair. Every prompt counts by its gradient's
    mean square, which is proportional to ``c (n - c)``. Then k is chosen so that this λ is the one
    that is asked for; that of ``k^(1-λ)`` is up to 0.15 off.

    Attributes:
        weights: ``(K, m)`` of the objective at ``ks``, root gradient sizes multiplied in.
        ks: ``(K,)`` 1, 2, ... and last K, the k that the user chose. In between, an objective mixes
            the weights of both neighbours.
    """

    weights: np.ndarray
    ks: np.ndarray

    @classmethod
    def over(cls, objective: LiveObjective, most: float, counts: Counts) -> ShareOfK | None:
        """From an objective's own prompt weights; its k and λ are left as they are.

        Args:
            objective: whose.
            most: K.
            counts: of the prompts.

        Returns:
            ``None`` where no two prompts differ in how w_K weighs them (all k are the same then),
            or where the objective gives a weight that is no number.
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
        if found.shape[1] < 2 or not np.isfinite(found).all():
            return None
        if np.ptp(found[-1]) <= 1e-9 * np.abs(found).max():
            return None
        return cls(found * size, ks)

    def share(self, k: float) -> float:
        """λ of the mix that is nearest to pass@k."""
        at = int(np.clip(np.searchsorted(self.ks, k, side="right") - 1, 0, len(self.ks) - 2))
        part = (k - self.ks[at]) / (self.ks[at + 1] - self.ks[at])
        weights = (1 - part) * self.weights[at] + part * self.weights[at + 1]
        ends = np.stack([self.weights[-1], self.weights[0]], axis=1)
        (own, pass1), *_ = np.linalg.lstsq(ends, weights, rcond=None)
        return float(np.clip(pass1 / (own + pass1), 0.0, 1.0)) if own + pass1 > 0 else 1.0

    def k(self, share: float) -> float:
        """The k in [1, K] that amounts to a share λ; K at 0 and 1 at 1."""
        if share <= 0.0 or share >= 1.0:
            return float(self.ks[0 if share > 0 else -1])
        low, high = float(self.ks[0]), float(self.ks[-1])
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.share(middle) > share else (low, middle)
        return (low + high) / 2
