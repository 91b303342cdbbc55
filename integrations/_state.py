"""Everything that a checkpoint keeps of a guard and its pass@1 term."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from passk_guard.actions import warn
from passk_guard.anchors import AnchorTerm
from passk_guard.guard import PassKGuard

__all__ = ["take_up", "whole_state"]


def whole_state(guard: PassKGuard, anchors: AnchorTerm | None) -> dict[str, Any]:
    """For ``torch.save``, readable with ``weights_only=True``."""
    return {**guard.state_dict(), "anchors": None if anchors is None else anchors.state_dict()}


def take_up(
    load: Callable[[], Mapping[str, Any]], guard: PassKGuard, anchors: AnchorTerm | None
) -> None:
    """Go on from what :func:`whole_state` gave; what cannot be read is said, and costs no run.

    Args:
        load: gives the state, or raises.
        guard: takes it over.
        anchors: likewise.
    """
    try:
        state = load()
        if not state:
            raise LookupError("it was saved without one")
        guard.load_state_dict(state)
        if anchors is not None and state.get("anchors") is not None:
            anchors.load_state_dict(state["anchors"])
    except Exception as error:
        warn(
            f"no guard state in this checkpoint ({type(error).__name__}: {error}). The guard "
            "starts afresh: losses before this step are not seen."
        )
