"""The last looks' Gramians, kept so that each can be weighed as training weighs prompts *today*.

Pooling each look's inner product as it was mixes different updates: λ, k and the trainer's scale
move during a run. With the Gramian and the counts at hand, everything that depends on weights is
computed anew at each look. All looks are of the same prompts, so that it is their kernels that are
averaged: an error over prompts is then one of the prompts, however many looks there are of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import torch

from passk_guard.runtime.stored import tensor
from passk_guard.statistics.alignment import symmetric_kernel, weighted_kernels
from passk_guard.statistics.cosine import Cosine, gradient_parts, profile_cosine
from passk_guard.statistics.interval import variance_slope
from passk_guard.statistics.variance import pooled_parts, variance_parts

_MOST = 10
_DECAY = 0.85  # an effective memory of about seven looks
_MOST_COMMON = 0.95  # of a look's variance


@dataclass(frozen=True)
class KeptBatch:
    """What weights are computed from, and what they weigh.

    Attributes:
        gramian: ``(m, m)`` inner products of per-prompt gradients.
        correct, n: ``(m,)`` counts that go into ŵ_k, see
            :func:`~passk_guard.passk.unbiased_prompt_weight`. Of leave-one-out gradients these are
            right rollouts and all of them. Of gradients whose baseline is of earlier rollouts,
            ``c`` right ones of ``N``, they are c + 1 and N + 2: ``ŵ_k(c+1)`` of N + 2 is
            ``k C(N-c, k-1) / C(N, k-1)``, which is unbiased for w_k(p).
        trainer_weights: ``(m,)`` what the trainer's own advantages weigh, NaN where not seen.
        rollouts: per prompt, behind the gradients.
    """

    gramian: np.ndarray
    correct: np.ndarray
    n: np.ndarray
    trainer_weights: np.ndarray
    rollouts: int


@dataclass(frozen=True)
class Foretold:
    """An inner product before it is measured.

    Attributes:
        mean: expected value.
        se: standard error of the measurement around it.
    """

    mean: float
    se: float


Weigh = Callable[[KeptBatch], np.ndarray]
"""``(m,)`` prompt weights of the update in force, for any batch."""


class KeptBatches:
    """The last ten, oldest first. A batch counts for its rollouts, and less with age.

    Args:
        batches: to begin with.
        parameters: digest of the names that all their gradients are by; ``None``: not known.
    """

    def __init__(self, batches: Sequence[KeptBatch] = (), parameters: str | None = None) -> None:
        self._batches, self._parameters = list(batches)[-_MOST:], parameters

    def __len__(self) -> int:
        return len(self._batches)

    def plus(self, batch: KeptBatch) -> KeptBatches:
        """With one more."""
        return KeptBatches([*self._batches, batch], self._parameters)

    def by(self, parameters: Sequence[str] | None) -> KeptBatches:
        """Those that may be pooled with gradients by these parameters: all, or none.

        Where more of a model is unfrozen, the update in force is another one.

        Args:
            parameters: their names; ``None`` where only the policy knows them.
        """
        digest = sha256("\n".join(parameters or ()).encode()).hexdigest()[:16]
        same = self._parameters in (None, digest)
        return KeptBatches(self._batches if same else (), digest)

    @property
    def _fresh(self) -> np.ndarray:
        return _DECAY ** np.arange(len(self._batches))[::-1]

    def cosine(self, weigh: Weigh) -> Cosine | None:
        """Of the update in force with the pass@1 gradient; ``None`` where nothing is kept."""
        if not self._batches:
            return None
        shares = self._fresh * [batch.rollouts for batch in self._batches]
        shares = shares / shares.sum()
        kernels = np.zeros((3, *self._batches[-1].gramian.shape))
        for share, batch in zip(shares, self._batches, strict=True):
            kernels += share * weighted_kernels(batch.gramian, weigh(batch))
        return profile_cosine(gradient_parts(kernels))

    def foretold(self, weigh: Weigh, rollouts: int) -> Foretold | None:
        """The inner product of the update in force at the next look, if its true value is 0.

        All looks are of the same prompts, so part of their errors is one and the same: what these
        prompts differ by from the pool. Its variance is what the kept looks' errors have in common,
        and at least half of the variance of their mean, which it cannot exceed. What they have
        shown of it is the ``mean``; the rest of the errors is new at every look. Where the variance
        rises with the value it is taken as it would be at 0, as in the test of the first look.

        Args:
            weigh: gives the weights in force.
            rollouts: per prompt, in the batch that is judged. Others have another noise.

        Returns:
            ``None`` where no kept look has as many rollouts, or without signal. Never by the batch
            that is judged, whose error is small where its value is.
        """
        alike = [i for i, batch in enumerate(self._batches) if batch.rollouts == rollouts]
        if not alike:
            return None
        kernels = [symmetric_kernel(one.gramian, weigh(one)) for one in self._batches]
        parts, m = [variance_parts(H) for H in kernels], len(kernels[-1])
        variances = np.array([one.kept_at(m) for one in parts])
        pooled = pooled_parts([parts[i] for i in alike], self._fresh[alike].tolist())
        if (now := pooled.kept_at(m)) <= 0:
            return None
        shares = np.array([batch.rollouts for batch in self._batches], float)
        shares /= shares.sum()
        mean = np.tensordot(shares, np.stack(kernels), 1)
        row = mean.sum(1)
        more = max(-variance_slope(mean, row) * float(row.sum()) / (m * (m - 1)), 0.0)
        now, variances = now + more, variances + more
        of_mean = variance_parts(mean, row).kept_at(m) + more
        common = of_mean / 2
        if len(kernels) > 1:
            estimate = float(of_mean - shares**2 @ variances) / (1 - float(shares @ shares))
            common = min(max(common, estimate), of_mean)
        common = min(common, _MOST_COMMON * now)
        own = np.maximum(variances - common, (1 - _MOST_COMMON) * variances)
        if common <= 0 or not (own > 0).all():
            return Foretold(0.0, math.sqrt(now))
        precision = 1 / common + float((1 / own).sum())
        inner = np.array([H.sum() for H in kernels]) / (m * (m - 1))
        return Foretold(
            float((inner / own).sum()) / precision, math.sqrt(now - common + 1 / precision)
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on after a resume, for ``torch.save``."""
        batches = [_stored(batch) for batch in self._batches]
        return {"batches": batches, "parameters": self._parameters}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave.

        Raises:
            Unfit: a batch is damaged; nothing is taken over.
        """
        batches = [_load(stored) for stored in state["batches"]]
        self._batches, self._parameters = batches, state["parameters"]


def _stored(batch: KeptBatch) -> dict[str, Any]:
    names = ("gramian", "correct", "n", "trainer_weights")
    values: dict[str, Any] = {name: torch.from_numpy(getattr(batch, name)) for name in names}
    values["rollouts"] = batch.rollouts
    if np.isnan(batch.trainer_weights).any():  # NaN is equal to nothing
        values["trainer_weights"] = None
    return values


def _load(stored: Mapping[str, Any]) -> KeptBatch:
    m, seen = len(stored["n"]), stored["trainer_weights"]
    return KeptBatch(
        tensor(stored, "gramian", m, m).numpy(),
        tensor(stored, "correct", m).numpy(),
        tensor(stored, "n", m).numpy(),
        np.full(m, np.nan) if seen is None else tensor(stored, "trainer_weights", m).numpy(),
        stored["rollouts"],
    )
