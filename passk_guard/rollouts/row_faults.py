"""A row with which a verifier raises costs itself, not its batch."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from itertools import groupby
from typing import Any

from passk_guard.errors import ProbeError, reason_of, warn

_FAULTY = 1 / 8  # of the rows; more, and it is not a matter of single ones
_PATIENCE = 10.0  # seconds to look for them: a service that is down may take long to say so


class RowFaults:
    """Finds the rows with which a verifier raises, and names each once.

    Args:
        name: of the verifier.
    """

    def __init__(self, name: str) -> None:
        self._name, self._named, self._works = name, set[int](), False

    async def scores(
        self, score: Callable[[list[int]], Awaitable[list[float]]], rows: Sequence[int]
    ) -> list[float]:
        """Scores of rollouts, NaN for those of a row with which ``score`` raises.

        Args:
            score: gives the scores of some of them, by index.
            rows: of each rollout; those of one row lie together.

        Raises:
            Exception: the first error, where no single rows are at fault.
        """
        found, faults, first = [math.nan] * len(rows), dict[int, Exception](), list[Exception]()
        groups = [list(group) for _, group in groupby(range(len(rows)), rows.__getitem__)]
        began = time.perf_counter()

        async def settle(groups: list[list[int]]) -> None:
            which = [i for group in groups for i in group]
            try:
                for i, value in zip(which, await score(which), strict=True):
                    found[i] = value
                return
            except ProbeError:
                raise
            except Exception as error:
                first.append(error)
                if len(groups) == 1:
                    faults[rows[which[0]]] = error
            late = time.perf_counter() - began > _PATIENCE
            if late or len(faults) > most:
                raise first[0]
            if len(groups) > 1:
                await settle(groups[: len(groups) // 2])
                await settle(groups[len(groups) // 2 :])

        # Of a single row nothing tells whether it is the row's fault, but the call before.
        most = max(int(len(groups) * _FAULTY), 1) if len(groups) > 1 or self._works else 0
        self._works = False
        await settle(groups)
        if first and not faults:
            raise first[0]
        self._works = len(faults) < len(groups)
        for row, error in faults.items():
            self._name_once(row, error)
        return found

    def _name_once(self, row: int, error: Exception) -> None:
        if row not in self._named:
            self._named.add(row)
            warn(
                f"the verifier {self._name!r} raises with row {row} of the prompts "
                f"({reason_of(error)}). Its rollouts count as unscorable: fix or "
                "remove that row. The others are verified without it."
            )


def without_loop(coroutine: Coroutine[Any, Any, list[float]]) -> list[float]:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        found: list[float] = end.value
        return found
    raise RuntimeError("it waits for something")
