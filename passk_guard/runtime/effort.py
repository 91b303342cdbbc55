"""How far training has gone since the last look: learning rates summed over optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from passk_guard.runtime.stored import Stored


@dataclass(frozen=True)
class Effort:
    """What training has done since the last look.

    Attributes:
        steps: optimizer steps, each counted by its learning rate as a share of the largest one of
            the run so far. All of them count as 1 where no learning rate is seen.
        growth: by how much that largest one has grown since the last look, at least 1: whatever
            is known per step at the largest rate grows with it.
    """

    steps: float
    growth: float = 1.0


class EffortMeter(Stored):
    """Sums up learning rates, the largest of all parameter groups at each step.

    The rate seen as a step is over is the next one's already (schedulers move first), so a step
    counts with what was seen before it. Never raises: a rate that cannot be seen is taken to be as
    it was.

    Args:
        optimizer: gives the run's optimizer, or a wrapper with ``param_groups``.
    """

    _stored = ("_step", "_rate", "_peak", "_peak_before", "_sum", "_unseen")

    def __init__(self, optimizer: Callable[[], Any] | None = None) -> None:
        self._optimizer = optimizer
        self._step: int | None = None
        self._rate: float | None = None  # of the step to come; None where never seen
        self._peak = 0.0
        self._peak_before = 0.0  # as of the last look
        self._sum = 0.0
        self._unseen = 0  # steps without a rate

    def stepped(self, step: int) -> None:
        """``step`` optimizer steps are done; may be called at any of them, and more than once."""
        # Training that begins anew on the same trainer counts from 0 again.
        steps = 0 if self._step is None else max(step - self._step, 0)
        self._step = step
        if self._rate is None:
            self._unseen += steps
        else:
            self._sum += steps * self._rate
        rate = _largest_rate(self._optimizer)
        if rate is not None:
            self._rate, self._peak = rate, max(self._peak, rate)

    def taken(self, step: int) -> Effort:
        """The effort up to this step since the last call; the next one begins here."""
        self.stepped(step)
        steps = self._unseen + (self._sum / self._peak if self._peak else 0.0)
        growth = self._peak / self._peak_before if self._peak_before else 1.0
        self._sum, self._unseen, self._peak_before = 0.0, 0, self._peak
        return Effort(steps, growth)


def _largest_rate(optimizer: Callable[[], Any] | None) -> float | None:
    """Of all parameter groups; ``None`` where it cannot be seen."""
    try:
        groups = optimizer().param_groups  # type: ignore[misc]
        rate = max(float(group["lr"]) for group in groups)
    except Exception:  # whatever an optimizer of the user's own does
        return None
    return rate if math.isfinite(rate) and rate >= 0 else None
