"""The held-out pool: a fresh batch of prompts for every probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["HeldOutPool", "rows_from"]


class HeldOutPool:
    """Draws rows without replacement until all are used, then shuffles anew.

    On one fixed batch each prompt agrees with itself, and the alignment looks better than it is;
    fresh batches make the verdict one about the pool.

    >>> pool = HeldOutPool([{"prompt": c} for c in "abcde"], seed=0)
    >>> sorted(pool.draw(3) + pool.draw(2))
    [0, 1, 2, 3, 4]
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], seed: int = 0) -> None:
        self.rows = rows
        self._seed = seed
        self._epoch = 0
        self._left: list[int] = self._shuffled()

    def __len__(self) -> int:
        return len(self.rows)

    def draw(self, m: int) -> list[int]:
        """Ids of the next ``m`` rows, all different; of all rows where there are fewer."""
        m = min(m, len(self.rows))
        batch, self._left = self._left[:m], self._left[m:]
        if len(batch) < m:
            self._epoch += 1
            taken = set(batch)
            fresh = self._shuffled()
            # Rows already in this batch wait at the end of the new round.
            fresh = [i for i in fresh if i not in taken] + [i for i in fresh if i in taken]
            missing = m - len(batch)
            batch, self._left = batch + fresh[:missing], fresh[missing:]
        return batch

    def _shuffled(self) -> list[int]:
        order = np.random.default_rng([self._seed, self._epoch]).permutation(len(self.rows))
        return [int(i) for i in order]

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to draw the same batches after a resume."""
        return {"epoch": self._epoch, "left": list(self._left), "rows": len(self.rows)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave; a pool of another size starts afresh."""
        if state["rows"] == len(self.rows):
            self._epoch, self._left = int(state["epoch"]), list(state["left"])


def rows_from(prompts: Any) -> Sequence[Mapping[str, Any]]:
    """Turn what users pass as ``prompts`` into rows with a ``prompt`` column.

    Args:
        prompts: strings, chat-message lists, dict rows or a ``datasets.Dataset``.

    Raises:
        ValueError: there are none, or the rows have no ``prompt``.

    >>> rows_from(["1 + 1 ="])
    [{'prompt': '1 + 1 ='}]
    """
    if isinstance(prompts, (str, Mapping)) or not hasattr(prompts, "__getitem__"):
        raise ValueError(
            f"prompts must be a list or a map-style dataset, got {type(prompts).__name__}. "
            "Pass a list of strings, chat messages or dict rows, or one datasets.Dataset "
            "(for a DatasetDict pick a split; make a list of a streaming dataset)."
        )
    columns = getattr(prompts, "column_names", None)
    if columns is not None and "prompt" not in columns:
        raise ValueError(
            f"prompts has no 'prompt' column, it has {sorted(columns)}. "
            "Rename the column that holds the prompt."
        )
    if len(prompts) == 0:
        raise ValueError("prompts is empty. Pass held-out prompts, best 512 or more.")
    if columns is not None:
        return prompts  # type: ignore[no-any-return]
    rows = [row if isinstance(row, Mapping) else {"prompt": row} for row in prompts]
    for i, row in enumerate(rows):
        if "prompt" not in row:
            raise ValueError(
                f"prompts[{i}] has no 'prompt' key, it has {sorted(row)}. "
                "Each row needs its prompt under 'prompt'."
            )
        if not isinstance(row["prompt"], (str, list)) or not row["prompt"]:
            raise ValueError(
                f"prompts[{i}] holds {row['prompt']!r} as prompt. "
                "A prompt is a non-empty string or a list of chat messages."
            )
    return rows
