"""Counts from whatever a user has: a file, a probe, numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from passk_guard.checkpoints.probe_policy import PolicyProbe
from passk_guard.counts import Counts, PromptCount, gather, read_counts
from passk_guard.prompts.identity import prompt_text

__all__ = ["given_counts"]

_SAMPLING = ("temperature", "max_completion_length", "success_threshold")


def given_counts(side: Any, name: str) -> Counts:
    """Counts of one side of a comparison, unless it is a policy.

    Args:
        side: see :func:`passk_guard.compare`.
        name: of the argument.

    Raises:
        ValueError: it is nothing of the kind.
    """
    if isinstance(side, Counts):
        return side
    if isinstance(side, (str, Path)):
        return read_counts(side)
    if isinstance(side, PolicyProbe):
        return _of_probe(side)
    if isinstance(side, Mapping):
        return gather(name, (PromptCount(str(id), *_pair(id, at)) for id, at in side.items()))
    if isinstance(side, tuple) and len(side) == 2:
        correct, n = np.broadcast_arrays(*(np.asarray(part) for part in side))
        each = enumerate(zip(correct.ravel().tolist(), n.ravel().tolist(), strict=True))
        return gather(name, (PromptCount(str(i), *_pair(i, at)) for i, at in each))
    raise ValueError(
        f"{name} must be a path, Counts, a PolicyProbe, a mapping of (correct, n), a pair of "
        f"arrays or a policy, got {type(side).__name__}."
    )


def _pair(id: Any, counts: Any) -> tuple[int, int]:
    try:
        c, n = counts
        if int(c) == c and int(n) == n:
            return int(c), int(n)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"prompt {id!r} has {counts!r}: give (correct, n), two whole numbers.")


def _of_probe(probe: PolicyProbe) -> Counts:
    found = probe.reading
    rows = [probe.rows[i] for i in found.row_ids]
    group_by = probe.settings.get("group_by")
    return gather(
        probe.name,
        (
            PromptCount(
                id,
                int(c),
                int(n),
                None if group_by is None else str(row[group_by]),
                prompt_text(row),
            )
            for id, c, n, row in zip(probe.prompt_ids, found.correct, found.n, rows, strict=True)
        ),
        settings={key: probe.settings[key] for key in _SAMPLING if key in probe.settings},
    )
