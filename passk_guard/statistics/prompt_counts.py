"""Right rollouts of the reference's prompts: at the start, and at every look since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from passk_guard.rollouts.group import RolloutGroup, counts
from passk_guard.runtime.stored import tensor

Counts = tuple[np.ndarray, np.ndarray]
"""``(m,)`` right rollouts and ``(m,)`` rollouts of each prompt."""


class PromptCounts:
    """A table of counts: one column for the reference, one for each of the last looks.

    A look has too few rollouts of a prompt for its pass@k, its gradient's baseline or its weight.
    The last looks together have enough, and are as recent as can be.

    Args:
        groups: the reference.

    Attributes:
        rows: ``m`` row ids in the held-out pool.
        right, n: ``(m,)`` counts at the start.
    """

    def __init__(self, groups: Sequence[RolloutGroup]) -> None:
        self.rows = tuple(group.row for group in groups)
        self.right, self.n = (np.array(values) for values in counts(groups))
        self._looks: list[Counts] = []  # the last one first
        self._place = {row: i for i, row in enumerate(self.rows)}

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, groups: Sequence[RolloutGroup]) -> Counts:
        """Take in a look, of these prompts or of some of them; returns its own counts."""
        right, n = np.zeros((2, len(self)), int)
        at = self.places(groups)
        right[at], n[at] = counts(groups)
        self._looks.insert(0, (right, n))
        while len(self._looks) > 1 and self._sum(self._looks[:-1])[1].sum() >= self.n.sum():
            self._looks.pop()
        return right, n

    def places(self, groups: Sequence[RolloutGroup]) -> np.ndarray:
        """``(b,)`` places of these prompts among the rows."""
        return np.array([self._place[group.row] for group in groups], int)

    def recent(self) -> Counts:
        """Of the last looks, as many rollouts of each prompt as at the start; with those of the
        start while the looks have fewer.
        """
        right, n = self.since_start()
        short = n < self.n
        return right + short * self.right, n + short * self.n

    def since_start(self) -> Counts:
        """Of the last looks alone: at most about as many rollouts as at the start."""
        return self._sum(self._looks)

    def _sum(self, looks: Sequence[Counts]) -> Counts:
        right, n = np.zeros((2, len(self)), int)
        for one, of in looks:
            right, n = right + one, n + of
        return right, n

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on after a resume."""
        columns = [(self.right, self.n), *self._looks]
        return {
            "rows": list(self.rows),
            "columns": [torch.from_numpy(np.stack(column)) for column in columns],
        }

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> PromptCounts:
        """From what :meth:`state_dict` gave.

        Raises:
            Unfit: a column is of another shape.
        """
        found = cls([])
        found.rows = tuple(state["rows"])
        found._place = {row: i for i, row in enumerate(found.rows)}
        columns = [
            tensor({"counts": column}, "counts", 2, len(found)).numpy()
            for column in state["columns"]
        ]
        (found.right, found.n), *found._looks = [(right, n) for right, n in columns]
        return found
