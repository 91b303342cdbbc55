"""FSDP1's flattened parameters, of which each process holds a part. Duck-typed, as in `sharding`.

FSDP1 lays the parameters of a module end to end, and reduces the gradient of that in the backward,
by hooks which a probe has to leave in place: its gradient is read where they leave it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import Parameter

from passk_guard.runtime.processes import world

_MARK = "_is_flat_param"  # torch's own, of a FlatParameter


def is_flat(parameter: Tensor) -> bool:
    """Whether it is several parameters, laid end to end."""
    return bool(getattr(parameter, _MARK, False))


def flat_parameters(module: nn.Module) -> list[tuple[str, Parameter]]:
    """Of every part that FSDP1 has wrapped, by the part's name; none where it wrapped nothing."""
    found = []
    for name, part in module.named_modules():
        flat: Any = getattr(getattr(part, "_handle", None), "flat_param", None)
        if flat is not None and is_flat(flat):
            found.append((name or "model", flat))
    return found


@contextmanager
def flat_gradients(
    parameters: Sequence[tuple[str, Parameter]], feed: Callable[[str, Tensor, int], None]
) -> Iterator[Callable[[], None]]:
    """Within, ``backward()`` leaves gradients of its own, and what training left comes back after.

    Args:
        parameters: flat ones.
        feed: ``f(name, gradient, offset)`` takes this process's part of the mean over processes,
            and where it begins.

    Yields:
        To be called after each backward: feeds, and clears.
    """
    kept = [(parameter, _gradients(parameter)) for _, parameter in parameters]

    def read() -> None:
        for name, parameter in parameters:
            gradient = parameter.grad
            if gradient is not None:
                feed(name, gradient, world()[0] * gradient.numel())
            _set(parameter, None)

    try:
        for _, parameter in parameters:
            _set(parameter, None)
        yield read
    finally:
        for parameter, gradients in kept:
            _set(parameter, gradients)


def _members(flat: Any) -> list[Parameter]:
    """The parameters as the model knows them, where FSDP1 keeps these (``use_orig_params``)."""
    return [*(flat._params or ()), *(flat._shared_params or ())]


def _gradients(flat: Any) -> list[Tensor | None]:
    return [parameter.grad for parameter in (flat, *_members(flat))]


def _set(flat: Any, gradients: Sequence[Tensor | None] | None) -> None:
    everything = (flat, *_members(flat))
    for parameter, gradient in zip(everything, gradients or [None] * len(everything), strict=True):
        parameter.grad = gradient
