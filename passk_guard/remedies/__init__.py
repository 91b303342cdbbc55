"""From alarm to action: actions and controllers in registries, remedies, the pass@1 term."""

from passk_guard.remedies.actions import ACTIONS, Action, Request, register_action
from passk_guard.remedies.controller import (
    CONTROLLERS,
    Controller,
    ControlReading,
    register_controller,
)
from passk_guard.remedies.mpc_controller import PredictiveController

__all__ = [
    "ACTIONS",
    "CONTROLLERS",
    "Action",
    "ControlReading",
    "Controller",
    "PredictiveController",
    "Request",
    "register_action",
    "register_controller",
]
