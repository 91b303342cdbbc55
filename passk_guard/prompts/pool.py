"""The held-out pool, and the rows that stand for it."""

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
    """Rows in an order of their own: the first ones stand for all.

    Args:
        rows: the held-out prompts.
        seed: of the order.
        weight_by: column with each row's weight, such as its share of production traffic.

    Raises:
        ValueError: the column is missing, or a weight is not a number >= 0.

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
    ) -> None:
        self.rows = rows
        self._seed = seed
        self._epoch = 0
        self._weights = None
        if weight_by is not None:
            self._weights = _weights(_column(rows, weight_by, "weight_by"), weight_by)
        self._left: list[int] = self._shuffled()

    def __len__(self) -> int:
        return len(self.rows)

    def sizes(self, labels: Sequence[str] | None = None) -> dict[str | None, int]:
        """Rows in all, under ``None``, and by label.

        Args:
            labels: the group of every row.
        """
        return {None: len(self.rows), **Counter(labels or [])}

    def draw(self, m: int) -> list[int]:
        """Ids of the next ``m`` rows, all different; of all rows where there are fewer."""
        m = min(m, len(self.rows))
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

    def reference(self, m: int) -> tuple[list[int], np.ndarray]:
        """Ids of ``m`` rows that stand for the pool, and their weights, 1 on the mean.

        Rows without a weight of their own are drawn at random. Others are drawn with a chance in
        proportion to their weight, and certainly where that would be above 1: a weight is what is
        left, ``weight / chance`` (Horvitz and Thompson 1952).
        """
        rng = np.random.default_rng([self._seed, 0])
        order = rng.permutation(len(self.rows))
        if self._weights is None:
            return [int(i) for i in order[:m]], np.ones(min(m, len(order)))
        order = order[self._weights[order] > 0]
        weights, certain = self._weights[order], np.full(len(order), m >= len(order))
        chance = np.ones(len(order))
        while not certain.all():
            left = m - certain.sum()
            chance = np.where(certain, 1.0, weights * left / weights[~certain].sum())
            if not (more := (chance >= 1.0) & ~certain).any():
                break
            certain |= more
        ends = np.floor(np.where(certain, 0.0, chance).cumsum() + rng.random())
        drawn = certain | (np.diff(ends, prepend=0.0) > 0)
        weights = weights[drawn] / chance[drawn]
        return [int(i) for i in order[drawn]], weights / weights.mean()

    @cached_property
    def fingerprint(self) -> str:
        """Tells this pool from another one by the rows' content, of 4096 of them at most."""
        digest = hashlib.sha256(str(len(self.rows)).encode())
        for i in np.unique(np.linspace(0, len(self.rows) - 1, _MOST_HASHED).astype(int)):
            digest.update(row_text(self.rows[int(i)]).encode())
        return digest.hexdigest()[:16]

    def _shuffled(self) -> list[int]:
        rng = np.random.default_rng([self._seed, self._epoch])
        return [int(i) for i in rng.permutation(len(self.rows))]


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


def _weights(weights: list[Any], name: str) -> np.ndarray:
    """Of each row, 1 on the mean."""
    values = np.array([_weight(w) for w in weights])
    if not values.min() >= 0 or not values.sum() > 0:
        bad = next((i for i, value in enumerate(values) if not value >= 0), None)
        got = "" if bad is None else f" Row {bad} has {weights[bad]!r}."
        raise ValueError(f"weight_by={name!r} must hold numbers >= 0, not all of them 0.{got}")
    return np.asarray(values / values.mean())


def _weight(value: Any) -> float:
    """NaN where it is not a finite number."""
    try:
        weight = float(value)
    except (TypeError, ValueError):
        return np.nan
    return weight if np.isfinite(weight) else np.nan
