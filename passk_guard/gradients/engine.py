"""The door for gradient engines: from verified rollouts to the Gramian of per-prompt gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter

from passk_guard.errors import ProbeError
from passk_guard.gradients.accumulators import DEFAULT_MEMORY_LIMIT
from passk_guard.gradients.parameters import ParameterFilter
from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.policy import Policy
from passk_guard.runtime.progress import Progress, silent
from passk_guard.runtime.registry import Registry

Named = Sequence[tuple[str, Parameter]]
Metric = Callable[[Named], Mapping[str, Tensor]]
"""``P^(1/2)`` by parameter name; empty while there is no metric yet."""


@dataclass(frozen=True)
class EngineSettings:
    """Settings of an engine.

    Attributes:
        parameters: choice of the parameters to differentiate by.
        passes: size of a forward and backward.
        memory_limit: bytes that the gradients of a batch may take.
        prompts: number of prompts in a batch.
        metric: scales gradients, so that inner products become ``⟨ĝ, P ĝ'⟩``; Euclidean where
            ``None``.
        progress: called as the work goes on.
    """

    parameters: ParameterFilter = None
    passes: PassSize = field(default_factory=PassSize)
    memory_limit: float = DEFAULT_MEMORY_LIMIT
    prompts: int = 64
    metric: Metric | None = None
    progress: Progress = silent

    def kept_whole(self, needed: int) -> int:
        """Bytes that gradients take, of which ``needed`` would be all; sketches hardly take any."""
        return needed if needed <= self.memory_limit else 0


class GramianEngine(Protocol):
    """Takes the per-prompt gradients of pass@1, and keeps no more of them than it needs.

    An engine may have an attribute ``exact_bytes``: what the gradients of a batch would take
    unsketched. Where that exceeds the memory limit, the user is told that they are sketched. Its
    ``said`` is printed in the plan of a run. And with a method ``take(groups, seed) -> Taken`` it
    may give log-probs along with the Gramian.
    """

    def gramian(self, groups: Sequence[RolloutGroup], seed: tuple[int, ...]) -> Tensor | None:
        """Inner products ``⟨ĝ_i, ĝ_j⟩`` with ``ĝ = 1/n Σ_j (r_j - b_j) Σ_t ∇log π(y_jt)``.

        b_j is the mean of the prompt's other rollouts, or its share of right ones at earlier looks:
        see :meth:`~passk_guard.rollouts.group.RolloutGroup.centred_success`.

        Called on every process, with the same groups. ``.grad``, modes and generators are to be
        left as they are.

        Args:
            groups: ``m`` prompts with their verified rollouts; ĝ is 0 without ``has_signal``.
            seed: seed of the engine's own random numbers.

        Returns:
            ``(m, m)`` float64 on the CPU, the same on every process; ``None`` while the metric is
            not there yet.

        Raises:
            Exception: costs this probe.
        """
        ...


@dataclass(frozen=True)
class Taken:
    """What one pass gave.

    Attributes:
        gramian: ``(m, m)`` as :meth:`GramianEngine.gramian` gives it; ``None`` without a metric.
        scores: ``(n, L)`` log-probs of each prompt with a signal, rounded as
            :func:`~passk_guard.rollouts.scores.score` rounds them; ``None`` where the engine leaves
            them to it.
    """

    gramian: Tensor | None
    scores: list[Tensor | None] | None = None


EngineFactory = Callable[[Policy, EngineSettings], GramianEngine]
ENGINES = Registry[EngineFactory]("engine", ("gramian",))


def register_engine(name: str, factory: EngineFactory) -> None:
    """Make ``engine=name`` known; ``factory(policy, settings)`` is called once for each guard."""
    ENGINES.register(name, factory)


def make_engine(policy: Any, name: str, settings: EngineSettings) -> GramianEngine:
    """The engine of that name, or the policy's own: one with a ``gramian(groups)`` needs none.

    Raises:
        ValueError: the policy's own Gramian knows no metric.
    """
    if not hasattr(policy, "gramian"):
        engine: GramianEngine = ENGINES.make(name, policy, settings)
        return engine
    if settings.metric is not None:
        raise ValueError(
            "metric='adam' reads the optimizer's state by parameter, but the policy gives its own "
            "Gramian. Use metric='euclidean', and let the policy scale its gradients."
        )
    return PolicyEngine(policy)


def check_same(counted: Sequence[Any]) -> None:
    """See that all processes count the same right rollouts, or each would take another Gramian.

    Raises:
        ProbeError: they differ.
    """
    if any(other != counted[0] for other in counted):
        raise ProbeError(
            "processes hold different rollouts: let the policy give all of them the same, as "
            "VerifiedPolicy does"
        )


class PolicyEngine:
    """For a policy whose parameters lie elsewhere: its own ``gramian(groups)``.

    It is called on every process, and gives the same result on all.
    """

    def __init__(self, policy: Any) -> None:
        self._policy = policy

    def gramian(self, groups: Sequence[RolloutGroup], seed: tuple[int, ...]) -> Tensor:
        """The policy's, checked.

        Raises:
            ProbeError: it has another shape.
            FloatingPointError: it is not finite.
        """
        found = torch.as_tensor(self._policy.gramian(groups), dtype=torch.float64, device="cpu")
        if found.shape != (len(groups), len(groups)):
            raise ProbeError(
                f"the policy's gramian() gave shape {tuple(found.shape)} for {len(groups)} prompts"
            )
        if not bool(torch.isfinite(found).all()):
            raise FloatingPointError("the policy's gramian() is not finite")
        return found
