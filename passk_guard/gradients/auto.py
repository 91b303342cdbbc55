"""The engine that fits: layers are watched where that works, else one backward per prompt."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from passk_guard.gradients.backward import BackwardEngine
from passk_guard.gradients.engine import EngineSettings, Taken, check_same, register_engine
from passk_guard.gradients.hooked_pass import UnsupportedModelError
from passk_guard.gradients.hooks import HookEngine
from passk_guard.rollouts.group import RolloutGroup, counts
from passk_guard.rollouts.policy import Policy
from passk_guard.runtime.processes import everywhere

_MOST_UNKNOWN = 0.25  # of the parameters; beyond it little is saved


class AutoEngine:
    """:class:`HookEngine` as long as it can, then :class:`BackwardEngine` for good."""

    def __init__(self, policy: Policy, settings: EngineSettings) -> None:
        self._backward = BackwardEngine(policy, settings)
        self._size = settings.passes
        self._hooks: HookEngine | None = None
        self._why = ""
        try:
            self._hooks = HookEngine(policy, settings)
        except UnsupportedModelError as error:
            self._why = error.reason

    def gramian(self, groups: Sequence[RolloutGroup], seed: tuple[int, ...]) -> Tensor | None:
        """The Gramian alone; see :meth:`take`."""
        return self.take(groups, seed).gramian

    def take(self, groups: Sequence[RolloutGroup], seed: tuple[int, ...]) -> Taken:
        """Gramian of all prompts; log-probs too where layers are watched."""
        check_same(everywhere(lambda: counts(groups)))  # or they would go different ways
        signal = [group for group in groups if group.has_signal]
        if self._hooks is not None and signal:
            try:
                unknown = self._hooks.compare(signal)
                if unknown <= _MOST_UNKNOWN:
                    return self._hooks.take(groups, seed)
                self._why = f"{unknown:.0%} of the parameters are in layers that are not known"
            except UnsupportedModelError as error:
                self._why = error.reason
            self._hooks = None
        return Taken(self._backward.gramian(groups, seed))

    @property
    def exact_bytes(self) -> int:
        """What the gradients of a batch would take unsketched."""
        return self._backward.exact_bytes

    @property
    def said(self) -> str:
        """Which engine it is, and why."""
        if self._hooks is not None:
            return self._hooks.said
        return f"one backward per prompt, because {self._why}{self._size.said}"


register_engine("auto", AutoEngine)
