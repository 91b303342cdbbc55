"""Everything that a checkpoint keeps of a guard and its pass@1 term."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from passk_guard.anchors import AnchorTerm
from passk_guard.guard import PassKGuard

__all__ = ["load_whole_state", "whole_state"]


def whole_state(guard: PassKGuard, anchors: AnchorTerm | None) -> dict[str, Any]:
    """For ``torch.save``, readable with ``weights_only=True``."""
    return {**guard.state_dict(), "anchors": None if anchors is None else anchors.state_dict()}


def load_whole_state(
    state: Mapping[str, Any], guard: PassKGuard, anchors: AnchorTerm | None
) -> None:
    """Take over what :func:`whole_state` gave."""
    guard.load_state_dict(state)
    if anchors is not None and state.get("anchors") is not None:
        anchors.load_state_dict(state["anchors"])
