"""Adding the gradient of a pass@1 term to a step, at the size of the trainer's own gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from passk_guard.remedies.anchors import norm, squared
from passk_guard.runtime.processes import everywhere, world
from passk_guard.runtime.sharding import is_sharded


@torch.no_grad()
def add_to_gradients(
    named: Mapping[str, nn.Parameter], gradient: Mapping[str, Tensor], factor: float
) -> None:
    """``.grad += factor · gradient``, by parameter name."""
    for name, parameter in named.items():
        if name in gradient:
            added = (factor * gradient[name]).to(parameter.dtype)
            parameter.grad = added if parameter.grad is None else parameter.grad + added


def averaged(
    gradient: Mapping[str, Tensor],
    named: Mapping[str, nn.Parameter],
    reduce: Callable[..., Tensor],
) -> dict[str, Tensor]:
    """The mean over processes, of the named parameters only.

    Args:
        gradient: this process's share; a parameter that it did not reach counts as 0.
        named: in the same order on every process.
        reduce: ``reduce(tensor, reduce_op="mean")``.
    """
    if world()[1] == 1 or is_sharded(named.values()):  # averaged in the backward already
        return {name: gradient[name] for name in named if name in gradient}
    trainable = {name: p for name, p in named.items() if p.requires_grad}
    return {
        name: reduce(gradient.get(name, torch.zeros_like(p)), reduce_op="mean")
        for name, p in trainable.items()
    }


class HostNorm:
    """Norm of the gradient that the trainer's own loss leaves over one step, before clipping.

    Trainers tell it only in their logs, if at all; hooks see it as it accumulates.
    """

    def __init__(self) -> None:
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._norms: dict[str, Tensor] = {}
        self._sharded = False
        self._beside = 0.0

    @property
    def watching(self) -> bool:
        """Whether a step is being measured."""
        return bool(self._handles)

    def watch(self, named: Mapping[str, nn.Parameter], beside: float) -> None:
        """From here on to :meth:`read`; ``beside`` is the norm to compare with."""
        self.read()
        self._beside, self._sharded = beside, is_sharded(named.values())

        def note(name: str) -> Callable[[Tensor], None]:
            def hook(parameter: Tensor) -> None:
                if parameter.grad is not None:  # the last micro-batch's call sees the sum of all
                    self._norms[name] = squared(parameter.grad).sqrt()

            return hook

        for name, parameter in named.items():
            if parameter.requires_grad:
                handle = parameter.register_post_accumulate_grad_hook(note(name))
                self._handles.append(handle)

    def read(self) -> tuple[float, float]:
        """The trainer's norm and the one beside it; ends the measurement."""
        for handle in self._handles:
            handle.remove()
        mine = norm(self._norms.values())
        if self._sharded:
            mine = math.hypot(*everywhere(lambda: mine))
        found = mine, self._beside
        self._handles, self._norms = [], {}
        return found
