"""A pass@1 loss on anchor prompts, for trainers whose own loss the guard cannot reach into."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import Parameter

from passk_guard.errors import ProbeError, reason_of, survived, warn
from passk_guard.gradients.backward import add_gradient
from passk_guard.gradients.parameters import select_parameters
from passk_guard.objectives.mixes import AnchorMix
from passk_guard.prompts.pool import HeldOutPool
from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.policy import Policy
from passk_guard.rollouts.sampling import FitRows
from passk_guard.runtime.processes import decided_by_first, everywhere, world
from passk_guard.runtime.sharding import is_sharded, local_part


class AnchorLoss:
    """``L_1 = -mean_x 1/n Σ_j (r_j - r̄_{-j}) Σ_t log π(y_jt | x)`` on freshly sampled rollouts.

    Its gradient is an unbiased estimate of ``-∇J_1`` over the anchor prompts (REINFORCE with a
    leave-one-out baseline). Each process differentiates its share of the prompts; the mean over
    processes is the whole.

    Args:
        policy: samples, verifies and scores; on several processes it gives all of them all
            rollouts.
        pool: anchor prompts: training prompts, never the held-out ones.
        n: rollouts per prompt.
        prompts: per step.
        isolation: as for the guard.
        size: of a forward and backward.

    Raises:
        ValueError: the policy cannot sample these prompts.
    """

    def __init__(
        self,
        policy: Policy,
        pool: HeldOutPool,
        n: int,
        prompts: int,
        isolation: Callable[[int], AbstractContextManager[None]],
        size: PassSize,
    ) -> None:
        self.pool = pool
        self._policy, self._n, self._prompts = policy, n, prompts
        self._isolation, self._size = isolation, size
        self._fit = FitRows(policy, pool, prompts, "anchor_prompts")

    def parameters(self) -> dict[str, Parameter]:
        """The trainable parameters, by the name that :meth:`gradient` gives them."""
        return dict(select_parameters(self._policy.parameters()))

    def gradient(self, seed: int) -> dict[str, Tensor]:
        """``∇L_1`` by parameter name; ``.grad`` stays as it is.

        This process's share, to be averaged over processes; where parameters are sharded, its part
        of the whole.

        Prompts without a signal count in the mean, with a gradient of zero.

        Args:
            seed: of the sampling.

        Raises:
            FloatingPointError: a log-probability or a gradient is not finite.
            ProbeError: no prompt can be sampled.
        """
        rank, size = world()
        total = _Sum()
        with self._isolation(seed):
            ids = self._fit(self.pool.draw(self._prompts))
            if not ids:
                raise ProbeError("none of this step's anchor_prompts can be sampled")
            drawn = self._policy.generate([self.pool.rows[i] for i in ids], ids, self._n)
            groups = [group.on_cpu().scorable() for group in drawn]
            parameters = list(self.parameters().items())
            if is_sharded(parameter for _, parameter in parameters):
                rank, size = 0, 1  # each process does its part of every prompt
            self._size.fit(self._policy, [group for group in groups if group.has_signal])
            if mine := [group for group in groups[rank::size] if group.has_signal]:
                add_gradient(total, 0, self._policy, mine, parameters, self._size)
        for gradient in total.gradients.values():
            gradient.mul_(-size / len(groups))
        if not math.isfinite(norm(total.gradients.values())):
            raise FloatingPointError("the gradient of the pass@1 term is not finite")
        return total.gradients


class AnchorTerm:
    """The live pass@1 term: nothing while λ = 0, one gradient per optimizer step above.

    A fault costs that step's term only, and is said once per episode.

    Args:
        loss: on the anchor prompts.
        objective: λ and the scale, live.
        seed: of the sampling.
        strict: raise a fault.
    """

    def __init__(
        self, loss: AnchorLoss, objective: AnchorMix, seed: int, strict: bool = False
    ) -> None:
        self.loss, self.objective, self._seed, self._strict = loss, objective, seed, strict
        self.matched = False  # whether the scale is known
        self._complained = False

    def due(self) -> bool:
        """Whether there is anything to add; forgets an episode that has ended."""
        if self.objective.pass1_weight == 0:
            self._complained = self.matched = False
        return self.objective.pass1_weight > 0

    def parameters(self) -> dict[str, Parameter]:
        """What :meth:`gradient` is by."""
        return self.loss.parameters()

    def gradient(self, step: int) -> dict[str, Tensor] | None:
        """``∇L_1`` on this process, neither weighed nor scaled; ``None`` where it failed."""
        seed = int(np.random.SeedSequence([self._seed, step, 1]).generate_state(1)[0])
        found: dict[str, Tensor] | None = None
        with survived(self._strict, partial(self._complain, step)):
            mine: list[dict[str, Tensor]] = []
            everywhere(lambda: mine.append(self.loss.gradient(seed)))
            found = mine[0]  # not before all of them have theirs
        return found

    def _complain(self, step: int, error: Exception) -> None:
        if not self._complained and world()[0] == 0:
            warn(
                f"step {step}: the pass@1 term is left out, because it failed; training goes on, "
                "and this is said once. pass@1 is not protected meanwhile: mend what failed. "
                f"Reason: {reason_of(error)}"
            )
        self._complained = True

    def match(self, host: float, own: float) -> None:
        """Scale the term so that at λ = 1/2 it is as large as the host's gradient."""
        ratio = decided_by_first(host / own if own > 0 else 0.0)
        if math.isfinite(ratio) and ratio > 0:
            self.objective.scale, self.matched = ratio, True

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on after a resume; λ and the scale are the guard's to keep."""
        pool = self.loss.pool
        return {"prompts": pool.fingerprint, "pool": pool.state_dict(), "matched": self.matched}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        if state["prompts"] == self.loss.pool.fingerprint:  # else other anchor prompts
            self.loss.pool.load_state_dict(state["pool"])
        self.matched = bool(state["matched"])


class _Sum:
    """A gradient accumulator that adds prompts up."""

    def __init__(self) -> None:
        self.gradients: dict[str, Tensor] = {}

    def add(self, row: int, name: str, gradient: Tensor, offset: int = 0) -> None:
        """Add one parameter's gradient, whole."""
        if name in self.gradients:
            self.gradients[name] += gradient
        else:
            self.gradients[name] = gradient.detach().clone()

    def clear(self, rows: slice) -> None:
        """Forget all of it."""
        self.gradients.clear()


def squared(gradient: Tensor) -> Tensor:
    """Sum of squares, of this process's part. ``torch.norm`` is off by a twentieth at 10^8."""
    return local_part(gradient)[0].float().square().sum()


def norm(gradients: Iterable[Tensor]) -> float:
    """Euclidean norm over several tensors; the whole one where they are sharded."""
    gradients = list(gradients)
    mine = sum(float(squared(g)) for g in gradients)
    return math.sqrt(sum(everywhere(lambda: mine)) if is_sharded(gradients) else mine)
