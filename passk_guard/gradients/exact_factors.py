"""Gradients formed whole from their factors, prompt by prompt, and stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from passk_guard.gradients.accumulators import ExactGramian
from passk_guard.runtime.processes import add_up, world


class ExactFactors(ExactGramian):
    """A :class:`~passk_guard.gradients.layers.Sink` that loses nothing.

    Args:
        rows: prompts.
        shapes: of the parameters, whole, by name.
    """

    def __init__(self, rows: int, shapes: Mapping[str, torch.Size]) -> None:
        super().__init__(rows)
        self._shapes = shapes
        self._last: tuple[Tensor, list[tuple[int, slice]]] | None = None  # owners, their runs

    def factor(self, name: str, side: int, values: Tensor) -> Tensor:
        """The factor itself."""
        return values.detach()

    def outer(self, name: str, left: Tensor, right: Tensor, owners: Tensor) -> None:
        """Add ``Σ_t left_t right_tᵀ`` of each row to its owner's gradient."""
        gradients = self._of(name, self._shapes[name].numel(), right.device)
        for owner, which in self._runs_of(owners):
            b = right[which].flatten(0, -2).float()
            target = gradients[owner].view(self._shapes[name])
            if left.is_floating_point():
                target.addmm_(left[which].flatten(0, -2).float().T, b)
            else:
                target.index_add_(0, left[which].flatten(), b)

    def _runs_of(self, owners: Tensor) -> list[tuple[int, slice]]:
        """Read once for all layers of a batch, which share one tensor: a GPU is waited for."""
        if self._last is None or self._last[0] is not owners:
            self._last = owners, list(_runs(owners))
        return self._last[1]

    def vector(self, name: str, values: Tensor, owners: Tensor) -> None:
        """Add ``(b, width)`` to the gradient of a parameter with one dimension."""
        self._of(name, values.shape[-1], values.device).index_add_(0, owners, values.float())

    def merge(self, parameters: Sequence[tuple[str, Parameter]]) -> None:
        """Add up what processes hold; each of them names all parameters."""
        if world()[1] > 1:
            for name, parameter in parameters:
                add_up(self._of(name, self._shapes[name].numel(), parameter.device))


def _runs(owners: Tensor) -> Iterator[tuple[int, slice]]:
    """Neighbours that belong to one prompt."""
    prompts, lengths = owners.unique_consecutive(return_counts=True)
    start = 0
    for prompt, length in zip(prompts.tolist(), lengths.tolist(), strict=True):
        yield prompt, slice(start, start + length)
        start += length
