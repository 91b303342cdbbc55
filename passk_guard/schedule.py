"""When to probe: at fixed steps, or as often as a share of wall time allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Schedule"]

_CLOSEST = 10  # steps between self-spaced probes, at least
_DEFAULT_OVERHEAD = 0.02


class Schedule:
    """Decides which optimizer steps get a probe. The first one is due at once.

    Args:
        every: steps between probes; alone, it is kept to the letter.
        max_overhead: share of wall time that probes may take, 0.02 where neither is given. A
            probe is due once training has paid for those before it, and never closer than
            ``every`` (10) steps.
    """

    def __init__(self, every: int | None = None, max_overhead: float | None = None) -> None:
        self._closest = every or _CLOSEST
        self._overhead = max_overhead
        if every is None and max_overhead is None:
            self._overhead = _DEFAULT_OVERHEAD
        self._last: int | None = None
        self._training = 0.0
        self._probing = 0.0

    def due(self, step: int) -> bool:
        """Whether a probe should run now that ``step`` optimizer steps are done."""
        if self._last is None or step < self._last:  # a new run of the same trainer
            return True
        if step < self._last + self._closest:
            return False
        return self._overhead is None or self.share <= self._overhead

    def probed(self, step: int, seconds: float) -> None:
        """Note a probe, lost or not."""
        self._last = step
        self._probing += seconds

    def trained(self, seconds: float) -> None:
        """Note time spent on training."""
        self._training += seconds

    @property
    def timed(self) -> bool:
        """Whether the clock has a say in it."""
        return self._overhead is not None

    @property
    def share(self) -> float:
        """Share of the time so far that went into probes."""
        total = self._probing + self._training
        return self._probing / total if total else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on after a resume."""
        return {"last": self._last, "training": self._training, "probing": self._probing}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        self._last, self._training = state["last"], state["training"]
        self._probing = state["probing"]
