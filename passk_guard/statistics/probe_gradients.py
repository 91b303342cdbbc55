"""The gradients of a look's prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from torch import Tensor

from passk_guard.gradients.adam_metric import adam_scales
from passk_guard.gradients.engine import EngineSettings, Taken, make_engine
from passk_guard.gradients.parameters import NothingTrainable, select_parameters
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.policy import Policy


class ProbeGradients:
    """Takes gradients.

    Args:
        policy: scores rollouts.
        engine: its name.
        settings: of the engine; without a metric.
        optimizer: gives the run's optimizer, for Adam's metric; Euclidean where ``None``.

    Attributes:
        euclidean: whether that is the metric throughout.

    Raises:
        ValueError: no parameter can ever be differentiated by.
    """

    def __init__(
        self,
        policy: Policy,
        engine: str,
        settings: EngineSettings,
        optimizer: Callable[[], Any] | None,
    ) -> None:
        metric = None
        if optimizer is not None:
            metric = lambda parameters: adam_scales(optimizer(), parameters)  # noqa: E731
        self.euclidean = metric is None
        self._policy, self._wanted = policy, settings.parameters
        with suppress(NothingTrainable):  # gradual unfreezing
            self._select()
        self._engine = make_engine(policy, engine, replace(settings, metric=metric))
        # Before the first step Adam has no metric yet.
        self._first = self._engine if self.euclidean else make_engine(policy, engine, settings)

    def _select(self) -> tuple[str, ...] | None:
        if hasattr(self._policy, "gramian"):
            return None
        selected = select_parameters(self._policy.parameters(), self._wanted)
        return tuple(name for name, _ in selected)

    @property
    def parameters(self) -> tuple[str, ...] | None:
        """Names of those that are trained now; ``None`` where only the policy knows."""
        try:
            return self._select()
        except ValueError:
            return ()

    @property
    def exact_bytes(self) -> int:
        """What the gradients of a probe would take unsketched, where the engine says."""
        return 0 if self.parameters == () else getattr(self._engine, "exact_bytes", 0)

    def take(
        self, groups: Sequence[RolloutGroup], seed: tuple[int, ...], *, first: bool
    ) -> tuple[Tensor | None, list[Tensor | None] | None]:
        """The Gramian of a look, and log-probs where the engine gives them.

        Args:
            groups: ``m`` prompts with their rollouts.
            seed: of whatever the engine draws.
            first: whether this is the reference, which is taken in Euclidean metric.

        Returns:
            ``(m, m)``, ``None`` without a metric; ``(n, L)`` of each prompt with a signal.
        """
        engine = self._first if first else self._engine
        take = getattr(engine, "take", None)
        found: Taken = Taken(engine.gramian(groups, seed)) if take is None else take(groups, seed)
        return found.gramian, found.scores

    @property
    def said(self) -> str:
        """How gradients are taken, where the engine says."""
        return str(getattr(self._engine, "said", ""))
