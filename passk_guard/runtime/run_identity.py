"""Which run this is: its state, its journal and its guard belong to one."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from string import hexdigits
from typing import Any

from passk_guard.runtime.stored import Unfit, entry

__all__ = ["RunIdentity", "now"]

_LONGEST = 64


class RunIdentity:
    """Made as a run begins, and kept over its resumes.

    Attributes:
        id: eight hexadecimal digits, from the system's own source: no random state of the run's
            is touched.
        began: when, in UTC, as ISO 8601 has it.
    """

    def __init__(self) -> None:
        self.id = secrets.token_hex(4)
        self.began = now()

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"id": self.id, "began": self.began}

    def load_state_dict(self, state: Any) -> None:
        """Be the run that :meth:`state_dict` was called in; ``None``: a release that named none.

        Raises:
            Unfit: it is not whole; nothing is taken over.
        """
        if state is None:
            return
        run, began = _text(state, "id"), _text(state, "began")
        if not set(run) <= set(hexdigits):  # it becomes part of a file's name
            raise Unfit(f"id must be hexadecimal, got {run!r}")
        try:
            datetime.fromisoformat(began)
        except ValueError:
            raise Unfit(f"began must be a time, got {began!r}") from None
        self.id, self.began = run, began


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _text(state: Any, key: str) -> str:
    value = entry(state, key)
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST:
        raise Unfit(f"{key} must be a short text, got {type(value).__name__}")
    return value
