"""Where per-prompt gradients go, piece by piece: stored exactly, as long as memory allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import Parameter

from passk_guard.runtime.processes import add_up, everywhere, world
from passk_guard.runtime.sharding import local_part, whole_numel

DEFAULT_MEMORY_LIMIT = 4 * 2**30
_LONGEST_SUM = 2**18  # of products, in float32: over 10^8 of them it loses a thousandth


class GradientAccumulator(Protocol):
    """Takes gradients piece by piece."""

    def add(self, row: int, name: str, gradient: Tensor, offset: int = 0) -> None:
        """Add one parameter's gradient, or a slice of it, to the gradient of prompt ``row``.

        Args:
            row: of the prompt.
            name: of the parameter.
            gradient: the parameter's, or a slice of the flattened one.
            offset: where the slice begins.
        """
        ...

    def clear(self, rows: slice) -> None:
        """Forget what came for these rows."""
        ...


class ExactGramian:
    """Stores every prompt's gradient in float32: ``rows x parameters x 4`` bytes."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._gradients: dict[str, Tensor] = {}

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


def exact_bytes(parameters: Sequence[tuple[str, Parameter]], prompts: int) -> int:
    """Bytes that :class:`ExactGramian` takes: a float32 gradient for each prompt."""
    return 4 * prompts * sum(whole_numel(parameter) for _, parameter in parameters)
