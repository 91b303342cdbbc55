"""What a prompt is called in files: a name that its content gives it, the same on every machine."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


def prompt_ids(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of each row, 16 hexadecimal digits of a hash of all its columns.

    Equal texts with different answers are different prompts. A row that comes again has its number
    behind: it counts as a prompt of its own, wherever it stands.

    >>> prompt_ids([{"prompt": "?"}, {"prompt": "!"}, {"prompt": "?"}])
    ['4f3ec7f991013dc6', '6a6d71923f687646', '4f3ec7f991013dc6-2']
    """
    seen: Counter[str] = Counter()
    names = []
    for row in rows:
        name = hashlib.sha256(row_text(row).encode()).hexdigest()[:16]
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return names


def row_text(row: Mapping[str, Any]) -> str:
    """A row as JSON; of what JSON has no name for, the type: a repr may hold an address."""
    columns = sorted(row.items(), key=lambda column: str(column[0]))
    return json.dumps(columns, skipkeys=True, default=lambda value: type(value).__name__)


def prompt_text(row: Mapping[str, Any]) -> str:
    """A row's prompt; of chat messages the last one's content."""
    prompt = row["prompt"]
    if isinstance(prompt, list) and prompt and isinstance(prompt[-1], Mapping):
        prompt = prompt[-1].get("content", prompt)
    return str(prompt)
