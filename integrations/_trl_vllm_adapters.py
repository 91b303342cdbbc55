"""Adapters are merged into their layers for vLLM and out again, which leaves rounding behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def merges_adapters(model: Any) -> bool:
    """Whether weights for an engine are made by merging adapters in place."""
    return hasattr(model, "merge_adapter")


def unrounded(model: Any, sync: Callable[[], None]) -> Callable[[], None]:
    """Send weights so that the model is afterwards what it was, to the bit, also when that fails.

    Args:
        model: the one that is trained.
        sync: sends its weights to the engine, and merges adapters for it.
    """
    if not merges_adapters(model):
        return sync

    def synced() -> None:
        with _kept_layers(model):
            sync()

    return synced


@contextmanager
def _kept_layers(model: nn.Module) -> Iterator[None]:
    """Layers that adapters are merged into keep their weights, on the CPU meanwhile.

    A quantised layer gets another parameter as adapters are merged into it: the old one comes back.
    """
    modules: list[Any] = list(model.modules())
    adapted = [m for m in modules if hasattr(m, "get_base_layer") and hasattr(m, "unmerge")]
    kept = [
        (layer, name, parameter, _local(parameter).to("cpu", copy=True))
        for layer in (module.get_base_layer() for module in adapted)
        for name, parameter in layer.named_parameters(recurse=False)
    ]
    try:
        yield
    finally:
        for module in adapted:
            if module.merged:  # it has failed in between
                module.unmerge()
        with torch.no_grad():
            for layer, name, parameter, weights in kept:
                layer._parameters[name] = parameter
                _local(parameter).copy_(weights)


def _local(parameter: Any) -> Tensor:
    """This process's part of a parameter, or all of it."""
    part: Tensor = getattr(parameter, "_local_tensor", parameter)
    return part.detach()
