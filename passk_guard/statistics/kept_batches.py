"""The last probes' Gramians, kept so that each can be weighed as training weighs prompts *today*.

Pooling each probe's inner product as it was mixes different updates: λ, k and the trainer's scale
move during a run. With the Gramian and the counts at hand, everything that depends on weights is
computed anew at each look.
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
from passk_guard.statistics.alignment import symmetric_kernel
from passk_guard.statistics.cosine import (
    Cosine,
    gradient_parts,
    pooled_gradient_parts,
    profile_cosine,
)
from passk_guard.statistics.variance import pooled_parts, variance_parts

_MOST = 20
_DECAY = 0.85  # an effective memory of about seven probes


@dataclass(frozen=True)
class KeptBatch:
    """What weights are computed from, and what they weigh.

    Attributes:
        gramian: ``(m, m)`` inner products of per-prompt gradients.
        correct: ``(m,)`` right rollouts.
        n: ``(m,)`` rollouts.
        trainer_weights: ``(m,)`` what the trainer's own advantages weigh, NaN where not seen.
    """

    gramian: np.ndarray
    correct: np.ndarray
    n: np.ndarray
    trainer_weights: np.ndarray


Weigh = Callable[[KeptBatch], np.ndarray]
"""``(m,)`` prompt weights of the update in force, for any batch."""


class KeptBatches:
    """The last twenty, oldest first. A batch counts for its prompts, and less with age.

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
        parts = [gradient_parts(batch.gramian, weigh(batch)) for batch in self._batches]
        prompts = np.array([len(batch.n) for batch in self._batches])
        return profile_cosine(pooled_gradient_parts(parts, self._fresh * prompts))

    def scale(self, weigh: Weigh, prompts: int) -> float | None:
        """Standard error that the inner product of the update in force has in a batch of that size.

        From the unbiased parts of the variance, pooled: by what is kept, never by the batch that is
        judged, whose error is small where its value is. ``None`` where nothing is kept, or without
        signal.

        Args:
            weigh: gives the weights in force.
            prompts: in the batch.
        """
        if not self._batches:
            return None
        kernels = (symmetric_kernel(batch.gramian, weigh(batch)) for batch in self._batches)
        found = [variance_parts(kernel) for kernel in kernels]
        variance = pooled_parts(found, self._fresh.tolist()).kept_at(prompts)
        return math.sqrt(variance) if variance > 0 else None

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
    values: dict[str, Any] = {name: torch.from_numpy(value) for name, value in vars(batch).items()}
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
    )
