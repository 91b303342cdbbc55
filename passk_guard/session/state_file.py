"""Everything that a checkpoint keeps of a guard and its pass@1 term."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from passk_guard.errors import survived, warn
from passk_guard.guard import PassKGuard
from passk_guard.remedies.anchors import AnchorTerm

__all__ = ["FILE_NAME", "read_state", "take_up", "whole_state", "write_state"]

FILE_NAME = "passk_guard.pt"


def whole_state(guard: PassKGuard, anchors: AnchorTerm | None) -> dict[str, Any]:
    """For ``torch.save``, readable with ``weights_only=True``."""
    return {**guard.state_dict(), "anchors": None if anchors is None else anchors.state_dict()}


def read_state(path: Path) -> Mapping[str, Any] | None:
    """The state in a checkpoint; ``None`` where there is none."""
    if not path.exists():
        return None
    state: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def write_state(path: Path, state: Callable[[], Mapping[str, Any]], strict: bool = False) -> None:
    """Put a state into a checkpoint; where that fails it is said, and costs no run.

    Args:
        path: of the file.
        state: gives it.
        strict: raise what fails.
    """
    with survived(strict, _not_saved):
        file = io.BytesIO()  # torch's own writer hides what went wrong with the disk
        torch.save(state(), file)
        # A run that is killed meanwhile leaves no half-written file behind.
        path.with_suffix(".tmp").write_bytes(file.getvalue())
        path.with_suffix(".tmp").replace(path)


def _not_saved(error: Exception) -> None:
    warn(
        f"the guard's state was not saved ({type(error).__name__}: {error}). Training goes on; a "
        "run resumed from this checkpoint starts its guard afresh."
    )


def take_up(
    load: Callable[[], Mapping[str, Any] | None], guard: PassKGuard, anchors: AnchorTerm | None
) -> None:
    """Go on from what :func:`whole_state` gave; what cannot be read is said, and costs no run.

    Args:
        load: gives the state; ``None`` or an empty one where there is none.
        guard: takes it over.
        anchors: likewise.
    """
    afresh = "The guard starts afresh: losses before this step are not seen."

    def unreadable(error: Exception) -> None:
        if guard.is_main:
            warn(
                "the guard state in this checkpoint cannot be taken up "
                f"({type(error).__name__}: {error}). {afresh}"
            )

    with survived(guard.config.strict, unreadable):
        state = load()
        if not state:
            if guard.is_main:
                warn(f"there is no guard state in this checkpoint. {afresh}")
            return
        guard.load_state_dict(state)
        if anchors is not None and state.get("anchors") is not None:
            anchors.load_state_dict(state["anchors"])
