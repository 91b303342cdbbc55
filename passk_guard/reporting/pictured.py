"""What a picture needs of a look at a policy: in a run, or by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from passk_guard.statistics.alignment import Alignment


class Pictured(Protocol):
    """A :class:`~passk_guard.look.Probe` or a reading of a checkpoint, of ``m`` prompts."""

    @property
    def step(self) -> int | None:
        """Optimizer steps done; ``None`` outside a run."""
        ...

    @property
    def k(self) -> float:
        """Of the objective."""
        ...

    @property
    def prompts(self) -> int:
        """How many."""
        ...

    @property
    def row_ids(self) -> tuple[int, ...]:
        """``m`` rows of the held-out pool."""
        ...

    @property
    def pass_rates(self) -> np.ndarray:
        """``(m,)`` share of right rollouts."""
        ...

    @property
    def weights(self) -> np.ndarray:
        """``(m,)`` of the update."""
        ...

    @property
    def gramian(self) -> np.ndarray | None:
        """``(m, m)`` of per-prompt gradients."""
        ...

    @property
    def curve(self) -> Sequence[Alignment]:
        """For k = 1, 2 ..."""
        ...

    @property
    def update_alignment(self) -> Alignment | None:
        """Under these weights; ``None`` without signal."""
        ...
