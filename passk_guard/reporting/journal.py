"""A run's looks as JSONL, beside the run."""

from __future__ import annotations

import json
import math
import secrets
from pathlib import Path
from typing import Any

from passk_guard.errors import reason_of, warn

FILE_NAME = "passk_guard.jsonl"


class Journal:
    """One JSON object per line and look, in the order of the run.

    A run that begins keeps the file of another as ``passk_guard.jsonl.old``, ``.old2`` and so on.
    One that is resumed goes on in its own file, less what it will do again, and less a line that
    was cut off. One that starts again at step 0, as ``auto_find_batch_size`` lets it, goes on in
    its own file, too, and keeps all of it. What goes wrong costs one warning, and no training.

    Two runs in one folder do not write into one file. Before each line the journal sees whether
    the file still ends with its own last one. If not, somebody else writes there, such as the
    successor of a preempted run that still lives: it gets the file, and this run goes on in one of
    its own, ``passk_guard.<run>-<four digits>.jsonl``.

    Args:
        folder: of the run; made where it is missing. ``None``, or a URL: nothing is written.

    Attributes:
        path: of the file, as of now; ``None`` where nothing is written.
    """

    def __init__(self, folder: str | Path | None) -> None:
        local = folder is not None and "://" not in str(folder)
        self.path = Path(str(folder)) / FILE_NAME if local else None
        self._run: str | None = None
        self._start: dict[str, Any] | None = None  # the run's own start line
        # Where the last line begins and what it is; None where that is not known.
        self._end: tuple[int, bytes] | None = None
        self._shared = True  # the file is one that other runs in this folder would use, too
        self._complained = False

    def begin(self, step: int, run: str | None = None) -> None:
        """Make room for a run that has done ``step`` optimizer steps.

        Args:
            step: optimizer steps done.
            run: its id; each line will carry it.
        """
        self._run = run
        path = self.path
        if path is None:
            return
        try:
            if not path.exists():
                self._end = (0, b"")
                return
            lines = path.read_bytes().splitlines(keepends=True)
            there = _last_start(lines).get("run")
            if there != run if there else step == 0:
                path.replace(_aside(path))
                self._end = (0, b"")
                return
            kept = [line for line in lines if step == 0 or _step(line) <= step]
            whole = path.with_suffix(".tmp")  # a run that is killed here loses nothing
            whole.write_bytes(b"".join(kept))
            whole.replace(path)
            last = kept[-1] if kept else b""
            self._end = (sum(map(len, kept)) - len(last), last)
        except OSError as error:
            self._complain(error)

    def last_start(self) -> dict[str, Any]:
        """The last start line of the file as it lies there; empty where there is none."""
        try:
            return _last_start(self.path.read_bytes().splitlines()) if self.path else {}
        except OSError:
            return {}

    def write(self, record: dict[str, Any]) -> None:
        """Append a record; numbers that JSON has no name for (NaN, infinity) become ``null``."""
        if self.path is None:
            return
        try:
            line = self._line(record)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self._append(line):
                self._move_out()
                if self._start is not None and record.get("look") != "start":
                    self._append(self._line(self._start))
                self._append(line)
            if record.get("look") == "start":
                self._start = record
        except (OSError, TypeError, ValueError) as error:
            self._end = None  # half a line may lie there now
            self._complain(error)

    def _line(self, record: dict[str, Any]) -> bytes:
        named = record if self._run is None else {**record, "run": self._run}
        return json.dumps(_plain(named), allow_nan=False).encode() + b"\n"

    def _append(self, line: bytes) -> bool:
        """Add a line; ``False`` where the file has become somebody else's."""
        assert self.path is not None
        with self.path.open("a+b") as file:
            size = file.seek(0, 2)
            if self._end is None:
                file.seek(max(size - 1, 0))
                line = line if file.read(1) in (b"", b"\n") else b"\n" + line
            elif self._shared:
                begins, last = self._end
                file.seek(begins)
                if file.read(len(last) + 1) != last:
                    return False
            file.write(line)
        self._end = (size, line)
        return True

    def _move_out(self) -> None:
        """Go on in a file of one's own."""
        assert self.path is not None
        theirs = self.path
        name = f"passk_guard.{self._run or 'run'}-{secrets.token_hex(2)}.jsonl"
        self.path, self._shared, self._end = theirs.with_name(name), False, (0, b"")
        warn(
            f"another run writes to {theirs}, or has moved it, since this run's last line: do two "
            f"runs share one output folder? This one goes on in {self.path}, which passk-guard "
            "report reads; training goes on. If this run was meant to have ended, stop it; else "
            "give each run a folder of its own."
        )

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            warn(
                f"{self.path} could not be written (this warning is shown once). Training goes "
                f"on. {reason_of(error)}"
            )


def _record(line: bytes) -> dict[str, Any]:
    """Empty where the line is none."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _last_start(lines: list[bytes]) -> dict[str, Any]:
    for line in reversed(lines):
        if b'"start"' in line and (record := _record(line)).get("look") == "start":
            return record
    return {}


def _step(line: bytes) -> float:
    """Of a record; infinite where the line is none, or was cut off."""
    try:
        return float(_record(line)["step"]) if line.endswith(b"\n") else math.inf
    except (ValueError, TypeError, KeyError):
        return math.inf


def _aside(path: Path) -> Path:
    """Where an earlier file is kept: in no other one's place."""
    names = (path.with_name(f"{FILE_NAME}.old{i}") for i in ("", *range(2, 10**6)))
    return next(name for name in names if not name.exists())


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
