"""What stored alarms, named states and remedies must look like, seen before they are taken over.

Each check gives the state back with its values read, and leaves alone what it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from passk_guard.detection.named_states import EXPLORATION_COLLAPSE, VANISHING_SIGNAL
from passk_guard.runtime.stored import Unfit, entry, flag, mapping, maybe, number, texts, whole

__all__ = [
    "checked_alarms",
    "checked_anchors",
    "checked_cusum",
    "checked_named_states",
    "checked_remedy",
]

State = Mapping[str, Any]


def checked_alarms(state: State) -> State:
    """Of :class:`~passk_guard.detection.detector.ConflictDetector`."""

    def known(name: str) -> bool:
        return name in ("alignment", "level") or name.startswith("level of ")

    return {**state, **{key: texts(state, key, known) for key in ("active", "raised")}}


def checked_cusum(state: State) -> State:
    """Of :class:`~passk_guard.detection.cusum.AlignmentCusum`."""
    value, variance = number(state, "value", 0), maybe(number, state, "variance", 0)
    if variance == 0:
        raise Unfit("variance must be above 0")
    return {**state, "value": value, "variance": variance}


def checked_named_states(state: State) -> State:
    """Of :class:`~passk_guard.detection.named_states.StateWatch`."""
    active = texts(state, "active", (VANISHING_SIGNAL, EXPLORATION_COLLAPSE).__contains__)
    start = maybe(mapping, state, "start")
    if start is not None:
        start = {
            "gap": number(start, "gap"),
            "variance": number(start, "variance", 0),
            "top": number(start, "top"),
        }
    gap, variance = number(state, "gap"), number(state, "variance", 0)
    return {**state, "active": active, "start": start, "gap": gap, "variance": variance}


def checked_remedy(state: State) -> State:
    """Of :class:`~passk_guard.remedies.remedy.Remedy`; an objective reads its own."""
    entry(state, "objective")
    controller = maybe(mapping, state, "controller")
    if controller is None:
        return state
    read = {
        "engaged": flag(controller, "engaged"),
        "integral": number(controller, "integral", 0, 1),
        "value": number(controller, "value", 0, 1),
        "kp": number(controller, "kp", 0),
        "sign": number(controller, "sign", -1, 1),
        "changes": whole(controller, "changes"),
        "step": maybe(whole, controller, "step"),
    }
    return {**state, "controller": {**controller, **read}}


def checked_anchors(state: State) -> State:
    """Of :class:`~passk_guard.remedies.anchors.AnchorTerm`; its pool reads its own."""
    pool, matched = mapping(state, "pool"), flag(state, "matched")
    if not isinstance(state.get("prompts", ""), str):
        raise Unfit("prompts must be a text")
    return {**state, "pool": pool, "matched": matched}
