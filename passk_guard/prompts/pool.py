"""The held-out pool: a fresh batch of prompts for every probe."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from passk_guard.prompts.identity import row_text
from passk_guard.runtime.stored import Stored

_MOST_GROUPS = 20
_MOST_HASHED = 4096


class HeldOutPool(Stored):
    """Draws rows without replacement until all are used, then shuffles anew.

    On one fixed batch each prompt agrees with itself, and the alignment looks better than it is;
    fresh batches make the verdict one about the pool.

    Args:
        rows: the held-out prompts.
        seed: of the order.
        weight_by: column with each row's weight, such as its share of production traffic. Rows are
            then drawn in proportion to their weights: a row of three times the mean weight is drawn
            three times a round, one of a third of it once in three rounds. Estimates stay plain
            means.
        batch: rows drawn at once; a weight must not ask for a row twice in one batch.

    Raises:
        ValueError: the column is missing, a weight is not a number >= 0, or one is too large.

    >>> pool = HeldOutPool([{"prompt": c} for c in "abcde"], seed=0)
    >>> sorted(pool.draw(3) + pool.draw(2))
    [0, 1, 2, 3, 4]
    """

    _stored = ("_epoch", "_left")

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        seed: int = 0,
        *,
        weight_by: str | None = None,
        batch: int = 1,
    ) -> None:
        self.rows = rows
        self._seed = seed
        self._epoch = 0
        self._copies = None
        if weight_by is not None:
            self._copies = _copies(_column(rows, weight_by, "weight_by"), weight_by, batch)
        self._left: list[int] = self._shuffled()

    def __len__(self) -> int:
        return len(self.rows)

    def sizes(self, labels: Sequence[str] | None = None) -> dict[str | None, int]:
        """Rows in all, under ``None``, and by label; empty where rows have weights.

        Args:
            labels: the group of every row.
        """
        if self._copies is not None:  # a row may be drawn again before all of them were
            return {}
        return {None: len(self.rows), **Counter(labels or [])}

    def draw(self, m: int) -> list[int]:
        """Ids of the next ``m`` rows, all different; of all rows where there are fewer."""
        available = len(self.rows) if self._copies is None else int((self._copies > 0).sum())
        m = min(m, available)
        batch: dict[int, None] = {}
        waiting: list[int] = []  # already in this batch: the next one's turn
        while len(batch) < m:
            if not self._left:
                self._epoch += 1
                self._left = self._shuffled()
            row = self._left.pop(0)
            if row in batch:
                waiting.append(row)
            else:
                batch[row] = None
        self._left = waiting + self._left
        return list(batch)

    @cached_property
    def fingerprint(self) -> str:
        """Tells this pool from another one by the rows' content, of 4096 of them at most."""
        digest = hashlib.sha256(str(len(self.rows)).encode())
        for i in np.unique(np.linspace(0, len(self.rows) - 1, _MOST_HASHED).astype(int)):
            digest.update(row_text(self.rows[int(i)]).encode())
        return digest.hexdigest()[:16]

    def _shuffled(self) -> list[int]:
        rng = np.random.default_rng([self._seed, self._epoch])
        if self._copies is None:
            return [int(i) for i in rng.permutation(len(self.rows))]
        # Systematic rounding: after e rounds a row was drawn within 1 of e x its weight.
        offset = np.random.default_rng(self._seed).random(len(self.rows))
        done, after = (np.floor(offset + e * self._copies) for e in (self._epoch, self._epoch + 1))
        return [
            int(i)
            for i in rng.permutation(np.repeat(np.arange(len(done)), (after - done).astype(int)))
        ]


def _column(rows: Sequence[Mapping[str, Any]], name: str, argument: str) -> list[Any]:
    """One column of the rows.

    Raises:
        ValueError: a row lacks it; ``argument`` is what the user called it.
    """
    missing = next((i for i, row in enumerate(rows) if name not in row), None)
    if missing is not None:
        raise ValueError(
            f"{argument}={name!r} names no column of prompts: row {missing} has "
            f"{sorted(rows[missing])}."
        )
    return [row[name] for row in rows]


def row_labels(rows: Sequence[Mapping[str, Any]], group_by: str) -> list[str]:
    """The group of every row.

    Raises:
        ValueError: the column is missing, or has too many values to be groups.
    """
    labels = [str(value) for value in _column(rows, group_by, "group_by")]
    groups = len(set(labels))
    if groups > _MOST_GROUPS:
        raise ValueError(
            f"group_by={group_by!r} has {groups} different values; at most {_MOST_GROUPS} groups "
            "can have a floor of their own. Add a coarser column to prompts."
        )
    return labels


def _copies(weights: list[Any], name: str, batch: int) -> np.ndarray:
    """How often each row comes in a round, on the mean once."""
    values = np.array([_weight(w) for w in weights])
    if not values.min() >= 0 or not values.sum() > 0:
        bad = next((i for i, value in enumerate(values) if not value >= 0), None)
        got = "" if bad is None else f" Row {bad} has {weights[bad]!r}."
        raise ValueError(f"weight_by={name!r} must hold numbers >= 0, not all of them 0.{got}")
    copies: np.ndarray = values / values.mean()
    most = max(len(values) / batch, 1.0)
    if copies.max() > most:
        row = int(copies.argmax())
        raise ValueError(
            f"weight_by={name!r}: row {row} would make up {copies[row] / len(values):.0%} of all "
            f"draws, more than one in each batch of {batch}. Lower prompts_per_probe below "
            f"{int(len(values) / copies[row])}, or split that row's weight over several prompts."
        )
    return copies


def _weight(value: Any) -> float:
    """NaN where it is not a finite number."""
    try:
        weight = float(value)
    except (TypeError, ValueError):
        return np.nan
    return weight if np.isfinite(weight) else np.nan
