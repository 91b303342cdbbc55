"""Per-prompt gradients of pass@1, and their Gramian: engines in a registry."""

from passk_guard.gradients.backward import BackwardEngine
from passk_guard.gradients.engine import ENGINES, EngineSettings, GramianEngine, register_engine

__all__ = ["ENGINES", "BackwardEngine", "EngineSettings", "GramianEngine", "register_engine"]
