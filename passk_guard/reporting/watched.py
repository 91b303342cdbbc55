"""What reporting reads of the guard that took a look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from passk_guard.config import PassKGuardConfig
from passk_guard.look import Failure, Probe, Rescore
from passk_guard.prompts.pool import HeldOutPool


class Watched(Protocol):
    """A run under guard; a :class:`~passk_guard.PassKGuard` has all of it."""

    config: PassKGuardConfig
    pool: HeldOutPool
    history: list[Probe]
    rescores: list[Rescore]
    failures: list[Failure]

    @property
    def total_steps(self) -> int | None:
        """Of the run, where known."""
        ...

    @property
    def overhead(self) -> float:
        """Share of the run's time that the guard took."""
        ...

    @property
    def states(self) -> Sequence[str]:
        """Named states that hold now."""
        ...

    @property
    def run_id(self) -> str:
        """Of the run, over its resumes."""
        ...

    @property
    def began(self) -> str:
        """When the run began, in UTC, as ISO 8601 has it."""
        ...
