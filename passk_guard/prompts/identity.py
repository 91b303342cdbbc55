"""Which rows are the same by what they hold, and what a prompt is called in files."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np


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


_MOST_READ = 200_000


def fingerprint(value: Any) -> int:
    """A hash of what a row or a prompt holds: order of keys and absent values do not count.

    >>> fingerprint([{"role": "user", "content": "?"}]) == fingerprint(
    ...     [{"content": "?", "role": "user", "name": None}]
    ... )
    True
    """
    return hash(_canonical(value))


def trained_on(prompts: Iterable[Any], training: Any) -> int:
    """How many of the prompts are also training prompts."""
    theirs = {fingerprint(prompt) for prompt in prompts_in(training)}
    return sum(fingerprint(prompt) in theirs for prompt in prompts) if theirs else 0


def prompts_in(training: Any) -> Iterator[Any]:
    """The prompts of a training set, at most 200 000, where reading it leaves no trace.

    A stream would be used up, and a dataset of the user's own may draw random numbers as it is
    read: of these there are none.
    """
    if isinstance(training, (list, tuple)):
        found = (row.get("prompt") if isinstance(row, Mapping) else row for row in training)
    elif hasattr(training, "select_columns") and hasattr(training, "__len__"):  # of datasets
        if "prompt" not in training.column_names:
            return iter(())
        plain = training.with_format(None).select_columns(["prompt"])  # no transform of the user's
        found = (prompt for batch in plain.iter(batch_size=1000) for prompt in batch["prompt"])
    else:
        return iter(())
    return (prompt for prompt in islice(found, _MOST_READ) if _is_prompt(prompt))


def _is_prompt(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)
    )


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = [(str(k), _canonical(v)) for k, v in value.items() if v is not None]
        return tuple(sorted(kept, key=lambda pair: pair[0]))
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return tuple(map(_canonical, value))
    return value if isinstance(value, (str, bytes, int, float)) else repr(value)
