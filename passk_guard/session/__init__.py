"""A run under guard: its begin, looks, end and state; what a new adapter needs."""

from passk_guard.session.session import Session
from passk_guard.session.trainer_adapter import Arguments, GuardParts, TrainerAdapter

__all__ = ["Arguments", "GuardParts", "Session", "TrainerAdapter"]
