"""Lines of JSON, one at a time: files of rollouts are long, and may have been cut off."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def read_lines(path: Path, remarks: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects of a JSONL file with the numbers of their lines, from 1; blank lines are passed over.

    The last line may lack its end, as a kill leaves it: it is left out, and ``remarks`` says so.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder. Name one file in it.")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not text.strip():
                continue
            try:
                record = json.loads(text)
            except (ValueError, RecursionError) as error:
                if not line.endswith(b"\n"):  # nothing follows
                    remarks.append(
                        f"{path.name}: its last line, {number}, is cut off and left out."
                    )
                    return
                raise ValueError(
                    f"{at(path, number)} is not JSON: {_why(error)}. Mend or delete that line."
                ) from None
            if not isinstance(record, dict):
                raise ValueError(
                    f"{at(path, number)} holds {short(record)}, which is no JSON object. Each line "
                    "is one, in braces."
                )
            yield number, record


def at(path: Path, number: int) -> str:
    """Where something stands, for messages."""
    return f"{path}, line {number},"


def listed(names: Iterable[str], most: int = 8) -> str:
    """Names for messages: the first ones, and how many more there are."""
    shown = list(names)
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


def short(value: object, most: int = 60) -> str:
    """A value for messages, cut to ``most`` characters."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _why(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else "it is nested too deep"
