"""The gradients of a probe's prompts, and once those of all reference prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from passk_guard.gradients.adam_metric import adam_scales
from passk_guard.gradients.engine import EngineSettings, GramianEngine, Taken, make_engine
from passk_guard.gradients.parameters import NothingTrainable, select_parameters
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.policy import Policy
from passk_guard.statistics.evidence import kept_batch
from passk_guard.statistics.kept_batches import KeptBatch

Scores = list[Tensor | None]


class ProbeGradients:
    """Takes gradients and notes with them what prompt weights are computed from.

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
        self, groups: Sequence[RolloutGroup], seed: tuple[int, ...]
    ) -> tuple[KeptBatch | None, Scores | None]:
        """Of a probe, with log-probs where the engine gives them; no batch without a metric."""
        taken = _taken(self._engine, [groups], seed)
        return None if taken.gramian is None else kept_batch(taken.gramian, groups), taken.scores

    def take_reference(
        self,
        batches: Sequence[Sequence[RolloutGroup]],
        last: tuple[KeptBatch | None, Scores | None],
        seed: tuple[int, ...],
    ) -> tuple[KeptBatch, list[Scores] | None]:
        """Of all prompts at once, in Euclidean metric: pairs across batches count, too.

        Of a small pool a prompt may be in several batches. It counts once: with itself it agrees.

        Args:
            batches: of the reference.
            last: what :meth:`take` gave for the last one.
            seed: of whatever the engine draws.

        Returns:
            Gradients, and log-probs of each batch where the engine gives them.
        """
        batch, scores = last
        if len(batches) == 1 and batch is not None and self.euclidean:
            return batch, None if scores is None else [scores]
        groups = [group for batch in batches for group in batch]
        taken = _taken(self._first, batches, seed)
        assert taken.gramian is not None, "a Euclidean metric is always there"
        once = {group.row: i for i, group in enumerate(groups)}
        index = torch.tensor(list(once.values()), device="cpu")
        kept = kept_batch(taken.gramian[index[:, None], index], [groups[i] for i in once.values()])
        if taken.scores is None:
            return kept, None
        parts = iter(taken.scores)
        return kept, [[next(parts) for _ in batch] for batch in batches]

    @property
    def said(self) -> str:
        """How gradients are taken, where the engine says."""
        return str(getattr(self._engine, "said", ""))


def _taken(
    engine: GramianEngine, batches: Sequence[Sequence[RolloutGroup]], seed: tuple[int, ...]
) -> Taken:
    take = getattr(engine, "take", None)
    if take is not None:
        found: Taken = take(batches, seed)
        return found
    return Taken(engine.gramian([group for batch in batches for group in batch], seed))
