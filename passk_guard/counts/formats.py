"""What counts are read from, and the registry of formats that they are written in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from passk_guard.counts.counts import Counts
from passk_guard.runtime.registry import Registry

_HEAD = 1 << 16  # bytes that tell a format


class Source:
    """What lies at a path.

    Args:
        path: of a file or folder.

    Attributes:
        path: of it.
        name: what it is called in sentences.

    Raises:
        FileNotFoundError: there is nothing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = self.path.name or str(self.path)
        if not self.path.exists():
            raise FileNotFoundError(f"{self.path} does not exist. Give a file or folder of counts.")

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder; else a file."""
        return self.path.is_dir()

    @cached_property
    def head(self) -> bytes:
        """The first bytes of a file; empty for a folder."""
        if self.is_folder:
            return b""
        with self.path.open("rb") as file:
            return file.read(_HEAD).removeprefix(b"\xef\xbb\xbf").lstrip()

    @cached_property
    def first(self) -> dict[str, Any]:
        """The object on the first line that is not blank; empty where there is none."""
        if not self.head.startswith(b"{"):
            return {}
        with self.path.open("rb") as file:
            for line in file:
                text = line.removeprefix(b"\xef\xbb\xbf").strip()
                if text:
                    try:
                        record = json.loads(text)
                    except (ValueError, RecursionError):
                        return {}
                    return record if isinstance(record, dict) else {}
        return {}

    def below(self, pattern: str) -> list[Path]:
        """Files of a folder, at any depth, that match; in order of their paths."""
        return sorted(p for p in self.path.rglob(pattern) if p.is_file()) if self.is_folder else []


@dataclass(frozen=True)
class Choices:
    """What a user says of a file beyond its path; ``None`` where nothing was said.

    Attributes:
        metric: which of several scores decides.
        filter: which of several ways to read an answer.
        threshold: score from which a rollout is right.
    """

    metric: str | None = None
    filter: str | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Format:
    """One way to write counts down.

    Attributes:
        what: it is, for messages.
        recognises: whether a source is written so, by its content.
        read: the counts of a source.
        takes: which of the :class:`Choices` mean something here.
    """

    what: str
    recognises: Callable[[Source], bool]
    read: Callable[[Source, Choices], Counts]
    takes: frozenset[str] = frozenset()


FORMATS = Registry[Format]("format")


def register_format(name: str, format: Format) -> None:
    """Add a format; :func:`read_counts` then finds it, and ``format=name`` forces it.

    Raises:
        ValueError: the name is no plain word, or stands for another format.
    """
    FORMATS.register(name, format)
