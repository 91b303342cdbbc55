"""A run under guard: its begin, looks, end and state; what a new adapter needs."""

from passk_guard.session.arguments import Arguments
from passk_guard.session.guard_for_host import hosted_guard
from passk_guard.session.host import Host
from passk_guard.session.session import Session, TrainerSide

__all__ = ["Arguments", "Host", "Session", "TrainerSide", "hosted_guard"]
