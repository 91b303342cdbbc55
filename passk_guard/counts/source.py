"""A file or folder that counts may be read from: just enough of it to tell what wrote it."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

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
