"""Counts as plain JSONL, a line per prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from passk_guard.counts.counts import Counts

__all__ = ["write_counts"]


def write_counts(counts: Counts, path: str | Path) -> None:
    """Write counts as JSONL: ``prompt_id``, ``correct``, ``n``, and ``group``, ``prompt`` if known.

    :func:`passk_guard.counts.read_counts` gives the same prompts and counts back. What the lines
    have no room for is lost: verifier, settings and remarks.

    Args:
        counts: to write.
        path: of the file; one that is there is replaced.

    Raises:
        OSError: it cannot be written.
    """
    with Path(path).open("w", encoding="utf-8") as file:
        for i, id in enumerate(counts.ids):
            line: dict[str, Any] = {
                "prompt_id": id,
                "correct": int(counts.correct[i]),
                "n": int(counts.n[i]),
            }
            if counts.groups is not None and counts.groups[i]:
                line["group"] = counts.groups[i]
            if id in counts.texts:
                line["prompt"] = counts.texts[id]
            file.write(json.dumps(line) + "\n")
