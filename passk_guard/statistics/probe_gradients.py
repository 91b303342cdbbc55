"""The gradients of a probe's prompts, and once those of all reference prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from passk_guard.gradients.adam_metric import adam_scales
from passk_guard.gradients.engine import EngineSettings, make_engine
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.policy import Policy
from passk_guard.statistics.evidence import kept_batch
from passk_guard.statistics.kept_batches import KeptBatch

__all__ = ["ProbeGradients"]


class ProbeGradients:
    """Takes gradients and notes with them what prompt weights are computed from.

    Args:
        policy: scores rollouts.
        engine: its name.
        settings: of the engine; without a metric.
        optimizer: gives the run's optimizer, for Adam's metric; Euclidean where ``None``.

    Attributes:
        euclidean: whether that is the metric throughout.
        exact_bytes: what the gradients of a probe would take unsketched, where the engine says.
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
        self._engine = make_engine(policy, engine, replace(settings, metric=metric))
        # Before the first step Adam has no metric yet.
        self._first = self._engine if self.euclidean else make_engine(policy, engine, settings)
        self.exact_bytes: int = getattr(self._engine, "exact_bytes", 0)

    def take(self, groups: Sequence[RolloutGroup], seed: tuple[int, ...]) -> KeptBatch | None:
        """Of a probe; ``None`` while there is no metric."""
        gramian = self._engine.gramian(groups, seed)
        return None if gramian is None else kept_batch(gramian, groups)

    def take_reference(
        self,
        batches: Sequence[Sequence[RolloutGroup]],
        last: KeptBatch | None,
        seed: tuple[int, ...],
    ) -> KeptBatch:
        """Of all prompts at once, in Euclidean metric: pairs across batches count, too.

        Of a small pool a prompt may be in several batches. It counts once: with itself it agrees.

        Args:
            batches: of the reference.
            last: the gradients of the last one, where they were taken.
            seed: of whatever the engine draws.
        """
        if len(batches) == 1 and last is not None and self.euclidean:
            return last
        groups = list({group.row: group for batch in batches for group in batch}.values())
        gramian = self._first.gramian(groups, seed)
        assert gramian is not None, "a Euclidean metric is always there"
        return kept_batch(gramian, groups)
