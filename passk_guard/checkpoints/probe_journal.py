"""What a probe of a checkpoint has sampled so far, on disk: interrupted, it goes on from there.

One JSON object per line. The first says what is probed, and how; then a line per prompt, with its
counts and rollouts, a line behind each whole batch, and a line per reading::

    {"passk_guard": "probe", "version": ..., "settings": {"n": 16, "temperature": 1.0, ...}}
    {"look": "prompt", "prompt_id": "9f86...", "row": 3, "correct": 9, "n": 16,
     "group": ..., "prompt": ..., "rollouts": "eJzt..."}
    {"look": "batch", "prompts": 64}
    {"look": "reading", ...}

``group`` is there with ``group_by``, ``prompt`` with ``log_prompts``; the rollouts are a file of
``torch.save``, packed. ``passk-guard compare`` reads it as a file of counts.
"""

from __future__ import annotations

import base64
import io
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from passk_guard.errors import ProbeError, reason_of
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.group_state import group_state
from passk_guard.version import __version__

KIND = "probe"


class ProbeJournal:
    """Lines of one probe; several runs of the command may have written them.

    Args:
        path: of the file; ``None``: nothing is written.
        settings: what the rollouts depend on: a file with others is another probe's.

    Attributes:
        groups: rollouts that are there, in the order in which they were drawn.
        readings: that were taken so far.
        dropped: prompts of a batch that was cut off: they are sampled again.

    Raises:
        ValueError: the file is another probe's or no journal, or a line of it is damaged.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.groups: list[RolloutGroup] = []
        self.readings: list[dict[str, Any]] = []
        self.dropped = 0
        self._size = 0
        if path is None:
            return
        self._settings = json.loads(json.dumps(dict(settings)))  # as they will be read back
        if path.exists() and path.stat().st_size:
            self._read(path)
        else:
            head = {"passk_guard": KIND, "version": __version__, "settings": self._settings}
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append([head])

    def add(self, groups: Sequence[RolloutGroup], facts: Sequence[Mapping[str, Any]]) -> None:
        """Append a batch of verified rollouts, with ``prompt_id`` and other facts of each prompt.

        Raises:
            ProbeError: another process has written to the file meanwhile.
        """
        self.groups += groups
        prompts = [
            {
                "look": "prompt",
                **known,
                "row": group.row,
                "correct": group.correct,
                "n": group.scorable().n,
                "rollouts": _packed(group),
            }
            for group, known in zip(groups, facts, strict=True)
        ]
        self._append([*prompts, {"look": "batch", "prompts": len(self.groups)}])

    def add_reading(self, record: Mapping[str, Any]) -> None:
        """Append what was found."""
        self.readings.append(dict(record))
        self._append([{"look": "reading", **record}])

    def _append(self, records: Sequence[Mapping[str, Any]]) -> None:
        if self.path is None:
            return
        lines = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records).encode()
        with self.path.open("ab") as file:
            if os.fstat(file.fileno()).st_size != self._size:
                raise ProbeError(
                    f"another process has written to {self.path}: two probes cannot share a "
                    "journal. What it wrote is kept. Let one of them end, or give each a --journal."
                )
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())  # sampling is expensive
        self._size += len(lines)

    def _read(self, path: Path) -> None:
        lines = path.read_bytes().splitlines(keepends=True)
        head = _record(lines[0]) if lines else None
        if head is None or head.get("passk_guard") != KIND:
            raise ValueError(
                f"{path} is no journal of passk-guard probe. Give another --journal, or remove it."
            )
        _check_same(path, head.get("settings") or {}, self._settings)
        kept = end = len(lines[0])
        pending: list[RolloutGroup] = []
        rows: set[int] = set()
        for number, line in enumerate(lines[1:], start=2):
            end += len(line)
            record = _record(line)
            if record is None and number == len(lines):
                break  # cut off by a kill
            try:
                if record is None:
                    raise ValueError("this is not JSON")
                if record.get("look") == "prompt":
                    pending.append(_unpacked(record["rollouts"]))
                    if (row := pending[-1].row) in rows:
                        raise ValueError(f"row {row} is there twice")
                    rows.add(row)
                    continue
            except Exception as error:  # whatever zlib and torch find
                raise ValueError(
                    f"{path}, line {number}: {reason_of(error)}. What stands before "
                    "it is whole: remove the rest of the file, and the probe goes on from there."
                ) from None
            if record.get("look") == "reading":
                self.readings.append({k: v for k, v in record.items() if k != "look"})
            self.groups, pending, kept = [*self.groups, *pending], [], end
        self.dropped = len(pending)
        if kept < path.stat().st_size:
            os.truncate(path, kept)
        self._size = kept


def _packed(group: RolloutGroup) -> str:
    values = group_state(group).items()
    file = io.BytesIO()  # of a view torch would write the whole storage
    torch.save({k: v.clone() if isinstance(v, Tensor) else v for k, v in values}, file)
    return base64.b64encode(zlib.compress(file.getvalue())).decode()


def _unpacked(packed: str) -> RolloutGroup:
    file = io.BytesIO(zlib.decompress(base64.b64decode(packed)))
    return RolloutGroup(**torch.load(file, map_location="cpu", weights_only=True))


def _record(line: bytes) -> dict[str, Any] | None:
    """``None`` where the line is none, or was cut off."""
    try:
        found = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _check_same(path: Path, there: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    names = sorted({*there, *ours}, key=list({**ours, **there}).index)
    other = [name for name in names if there.get(name) != ours.get(name)]
    if other:
        said = ", ".join(f"{name} {there.get(name)!r}, now {ours.get(name)!r}" for name in other)
        raise ValueError(
            f"{path} is the journal of another probe: {said}. Rollouts of both cannot be put "
            "together. Give another --journal, or remove this one; for another k on the same "
            f"rollouts say --num-generations {there.get('n')}."
        )
