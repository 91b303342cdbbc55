"""Everything that a checkpoint keeps of a guard and its pass@1 term."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from passk_guard.errors import survived, warn
from passk_guard.guard import PassKGuard
from passk_guard.remedies.anchors import AnchorTerm

__all__ = ["FILE_NAME", "resumed_folder", "take_up", "whole_state"]

FILE_NAME = "passk_guard.pt"


def whole_state(guard: PassKGuard, anchors: AnchorTerm | None) -> dict[str, Any]:
    """For ``torch.save``, readable with ``weights_only=True``."""
    return {**guard.state_dict(), "anchors": None if anchors is None else anchors.state_dict()}


def resumed_folder(trainer: Any) -> Path | None:
    """The checkpoint that a ``transformers.Trainer`` was told to resume from, where it may lie.

    No event says which one: it is read where the running ``train()`` keeps it, on the stack.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        seen = frame.f_locals
        if seen.get("self") is trainer and "resume_from_checkpoint" in seen:
            folder = seen["resume_from_checkpoint"]
            return Path(folder) if isinstance(folder, (str, os.PathLike)) else None
        frame = frame.f_back
    return None


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
