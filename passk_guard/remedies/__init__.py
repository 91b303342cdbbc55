"""From alarm to action: actions and controllers in registries, remedies, the pass@1 term."""

from passk_guard.remedies.actions import ACTIONS, Action, Request, register_action
from passk_guard.remedies.controller import CONTROLLERS, Controller, register_controller
from passk_guard.remedies.floor_controller import FloorController

__all__ = [
    "ACTIONS",
    "CONTROLLERS",
    "Action",
    "Controller",
    "FloorController",
    "Request",
    "register_action",
    "register_controller",
]
