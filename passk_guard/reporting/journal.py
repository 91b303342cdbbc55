"""A run's looks as JSONL, beside the run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from passk_guard.errors import warn

__all__ = ["FILE_NAME", "Journal"]

FILE_NAME = "passk_guard.jsonl"


class Journal:
    """One JSON object per line and look, in the order of the run.

    A run that begins at step 0 keeps the file of an earlier run as ``passk_guard.jsonl.old``. One
    that is resumed goes on in its file, less what it will do again, and less a line that was cut
    off. What goes wrong costs one warning, and no training.

    Args:
        folder: of the run; made where it is missing. ``None``, or a URL: nothing is written.
    """

    def __init__(self, folder: str | Path | None) -> None:
        local = folder is not None and "://" not in str(folder)
        self.path = Path(str(folder)) / FILE_NAME if local else None
        self._complained = False

    def begin(self, step: int) -> None:
        """Make room for a run that has done ``step`` optimizer steps."""
        path = self.path
        if path is None:
            return
        try:
            if path.exists() and step == 0:
                path.replace(path.with_name(f"{FILE_NAME}.old"))
            elif path.exists():
                lines = path.read_text(encoding="utf-8").splitlines()
                kept = [line for line in lines if _step(line) <= step]
                whole = path.with_suffix(".tmp")  # a run that is killed here loses nothing
                whole.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
                whole.replace(path)
        except (OSError, ValueError) as error:
            self._complain(error)

    def write(self, record: dict[str, Any]) -> None:
        """Append a record; numbers that JSON has no name for (NaN, infinity) become ``null``."""
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(_plain(record), allow_nan=False) + "\n")
        except (OSError, TypeError, ValueError) as error:
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            warn(
                f"{self.path} could not be written, which is said only once. Training goes on. "
                f"{type(error).__name__}: {error}"
            )


def _step(line: str) -> float:
    """Of a record; infinite where the line is none."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return math.inf


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
