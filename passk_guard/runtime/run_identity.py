"""Which run this is: its state, its journal and its guard belong to one."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from passk_guard.runtime.stored import Stored


class RunIdentity(Stored):
    """Made as a run begins, and kept over its resumes.

    Attributes:
        id: eight hexadecimal digits, from the system's own source: no random state of the run's
            is touched.
        began: when, in UTC, as ISO 8601 has it.
    """

    _stored = ("id", "began")

    def __init__(self) -> None:
        self.id = secrets.token_hex(4)
        self.began = now()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Be the run that :meth:`state_dict` was called in.

        Raises:
            ValueError: it names no run.
        """
        int(state["id"], 16)  # it becomes part of a file's name
        datetime.fromisoformat(state["began"])
        super().load_state_dict(state)


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
