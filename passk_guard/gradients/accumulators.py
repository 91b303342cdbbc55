"""Per-prompt gradients stored exactly, as long as memory allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from passk_guard.runtime.processes import add_up, everywhere, world
from passk_guard.runtime.sharding import local_part, whole_numel

DEFAULT_MEMORY_LIMIT = 4 * 2**30
_LONGEST_SUM = 2**18  # of products, in float32: over 10^8 of them it loses a thousandth


class ExactGramian:
    """Stores every prompt's gradient in float32: ``rows x parameters x 4`` bytes.

    Takes gradients as they are, or as a :class:`~passk_guard.gradients.layers.Sink` their factors.

    Args:
        rows: number of prompts.
        shapes: whole shapes of the parameters that come as factors, by name.
    """

    def __init__(self, rows: int, shapes: Mapping[str, torch.Size] | None = None) -> None:
        self._rows = rows
        self._shapes = shapes or {}
        self._gradients: dict[str, Tensor] = {}
        self._last: tuple[Tensor, list[tuple[int, slice]]] | None = None  # owners, their runs

    def add(self, row: int, name: str, gradient: Tensor, offset: int = 0) -> None:
        """Add one parameter's gradient, or this process's part of it, to that of prompt ``row``."""
        flat, _ = local_part(gradient)
        self._of(name, len(flat), flat.device)[row] += flat

    def _of(self, name: str, numel: int, device: torch.device) -> Tensor:
        if name not in self._gradients:
            self._gradients[name] = torch.zeros(
                self._rows, numel, dtype=torch.float32, device=device
            )
        return self._gradients[name]

    def factor(self, name: str, side: int, values: Tensor) -> Tensor:
        """The factor itself."""
        return values.detach()

    def outer(self, name: str, left: Tensor, right: Tensor, owners: Tensor) -> None:
        """Add ``Σ_t left_t right_tᵀ`` of each row to its owner's gradient."""
        gradients = self._of(name, self._shapes[name].numel(), right.device)
        if self._last is None or self._last[0] is not owners:
            # Once for all layers of a batch, which share one tensor: reading it waits for the GPU.
            self._last = owners, list(_runs(owners))
        for owner, which in self._last[1]:
            b = right[which].flatten(0, -2).float()
            target = gradients[owner].view(self._shapes[name])
            if left.is_floating_point():
                target.addmm_(left[which].flatten(0, -2).float().T, b)
            else:
                target.index_add_(0, left[which].flatten(), b)

    def vector(self, name: str, values: Tensor, owners: Tensor) -> None:
        """Add ``(b, width)`` to the gradient of a parameter with one dimension."""
        self._of(name, values.shape[-1], values.device).index_add_(0, owners, values.float())

    def clear(self, rows: slice) -> None:
        """Forget what came for these rows."""
        for gradients in self._gradients.values():
            gradients[rows] = 0

    def merge(self, parameters: Sequence[tuple[str, Parameter]]) -> None:
        """Add up what processes hold; each of them names all parameters."""
        if world()[1] > 1:
            for name, parameter in parameters:
                # This one may hold none of it.
                add_up(self._of(name, whole_numel(parameter), parameter.device))

    def gramian(self, *, sharded: bool = False) -> Tensor:
        """``(rows, rows)`` float64 inner products, on the CPU.

        Args:
            sharded: processes hold parts of each gradient, whose inner products add up.
        """
        total = torch.zeros(self._rows, self._rows, dtype=torch.float64, device="cpu")
        for gradients in self._gradients.values():
            for part in gradients.split(_LONGEST_SUM, 1):
                total += (part @ part.T).to("cpu", torch.float64)
        return torch.stack(everywhere(lambda: total)).sum(0) if sharded else total


def _runs(owners: Tensor) -> Iterator[tuple[int, slice]]:
    """Neighbours that belong to one prompt."""
    prompts, lengths = owners.unique_consecutive(return_counts=True)
    start = 0
    for prompt, length in zip(prompts.tolist(), lengths.tolist(), strict=True):
        yield prompt, slice(start, start + length)
        start += length


def exact_bytes(parameters: Sequence[tuple[str, Parameter]], prompts: int) -> int:
    """Bytes that :class:`ExactGramian` takes: a float32 gradient for each prompt."""
    return 4 * prompts * sum(whole_numel(parameter) for _, parameter in parameters)
