"""Per-prompt gradients of pass@1, and their Gramian: engines in a registry."""

from passk_guard.gradients.auto import AutoEngine
from passk_guard.gradients.backward import BackwardEngine
from passk_guard.gradients.engine import (
    ENGINES,
    EngineSettings,
    GramianEngine,
    Taken,
    register_engine,
)
from passk_guard.gradients.hooks import HookEngine

__all__ = [
    "ENGINES",
    "AutoEngine",
    "BackwardEngine",
    "EngineSettings",
    "GramianEngine",
    "HookEngine",
    "Taken",
    "register_engine",
]
