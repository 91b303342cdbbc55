"""What the parameters of a layer receive, from its input and from its output's gradient.

A linear layer's gradient is ``Σ_t b_t a_tᵀ`` over tokens, with input a and output gradient b: known
before any parameter's gradient is formed, and for every rollout of a batch apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from passk_guard.runtime.sharding import whole_shape

Names = Mapping[str, str]
"""From a parameter's name in its layer to its name in the policy; those to differentiate by."""

Feed = Callable[[Tensor], None]
"""Takes the gradient of a layer's output."""

_LEFT, _RIGHT = 0, 1


class Sink(Protocol):
    """Takes the factors of gradients. Tensors are ``(b, t, width)``, owners ``(b,)`` are prompts.

    Left factors go along a parameter's first dimension, right ones along its second.
    """

    def factor(self, name: str, side: int, values: Tensor) -> Tensor:
        """What is kept of a factor: itself, or its projection.

        Args:
            name: of the parameter.
            side: 0 left, 1 right.
            values: ``(b, t, width)``, or ``(b, t)`` indices, where the factor is one-hot.
        """
        ...

    def outer(self, name: str, left: Tensor, right: Tensor, owners: Tensor) -> None:
        """Add ``Σ_t left_t right_tᵀ`` of each row to its owner's gradient; both from `factor`."""
        ...

    def vector(self, name: str, values: Tensor, owners: Tensor) -> None:
        """Add ``(b, width)`` to the gradient of a parameter with one dimension."""
        ...


Rule = Callable[[nn.Module, Names, Tensor, Tensor, Sink], Feed]
"""``f(layer, names, input, owners, sink)``, called in the forward."""


def rule_of(layer: Any) -> Rule | None:
    """How a layer's gradients come about; ``None`` where that is not known.

    A subclass with a forward of its own is another layer.
    """
    kind = type(layer)
    for known, rule in _RULES.items():
        if isinstance(layer, known) and kind.forward is known.forward:
            return rule if _is_plain(layer) else None
    if kind.__name__ == "Conv1D" and getattr(layer, "nf", None) == whole_shape(layer.weight)[-1]:
        return partial(_linear, side=_LEFT)  # transformers', of GPT-2: the other way round
    if kind.__name__.endswith("RMSNorm") and _epsilon(layer) is not None:
        return _rms_norm
    return None


def _linear(
    layer: Any, names: Names, x: Tensor, owners: Tensor, sink: Sink, side: int = _RIGHT
) -> Feed:
    """The input lies along one side of the weight, the output's gradient along the other."""
    weight, bias = names.get("weight"), names.get("bias")
    inputs = None if weight is None else sink.factor(weight, side, _tokens(x))

    def feed(gradient: Tensor) -> None:
        if weight is not None and inputs is not None:
            outputs = sink.factor(weight, 1 - side, _tokens(gradient))
            pair = (outputs, inputs) if side == _RIGHT else (inputs, outputs)
            sink.outer(weight, *pair, owners)
        if bias is not None:
            sink.vector(bias, _summed(gradient), owners)

    return feed


def _embedding(layer: Any, names: Names, x: Tensor, owners: Tensor, sink: Sink) -> Feed:
    name = names["weight"]
    left = sink.factor(name, _LEFT, x.flatten(1))
    padding = layer.padding_idx

    def feed(gradient: Tensor) -> None:
        if padding is not None:
            gradient = gradient * x.ne(padding).unsqueeze(-1)
        sink.outer(name, left, sink.factor(name, _RIGHT, _tokens(gradient)), owners)

    return feed


def _layer_norm(layer: Any, names: Names, x: Tensor, owners: Tensor, sink: Sink) -> Feed:
    return _scaling(names, x, owners, sink, layer.eps, centred=True)


def _rms_norm(layer: Any, names: Names, x: Tensor, owners: Tensor, sink: Sink) -> Feed:
    epsilon = _epsilon(layer)
    epsilon = torch.finfo(x.dtype).eps if epsilon is None else epsilon
    return _scaling(names, x, owners, sink, epsilon, centred=False)


def _scaling(
    names: Names, x: Tensor, owners: Tensor, sink: Sink, epsilon: float, *, centred: bool
) -> Feed:
    """Of a layer that multiplies what it normalised by a weight, and may add a bias."""
    weight, bias = names.get("weight"), names.get("bias")

    def feed(gradient: Tensor) -> None:
        if weight is not None:
            g, wide = _tokens(gradient).float(), _tokens(x).float()
            wide = wide - wide.mean(-1, keepdim=True) if centred else wide
            size = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
            scale = torch.rsqrt(size.square() / wide.shape[-1] + epsilon)
            sink.vector(weight, torch.bmm((g * wide).transpose(1, 2), scale)[..., 0], owners)
        if bias is not None:
            sink.vector(bias, _summed(gradient), owners)

    return feed


def _tokens(values: Tensor) -> Tensor:
    """``(b, t, width)``, whatever lies between."""
    return values.flatten(1, -2)


def _summed(values: Tensor) -> Tensor:
    """``(b, width)`` float32, over all dimensions between."""
    return _tokens(values).sum(1, dtype=torch.float32)


def _epsilon(layer: Any) -> float | None:
    found = getattr(layer, "variance_epsilon", None)
    return getattr(layer, "eps", None) if found is None else found


def _is_plain(layer: Any) -> bool:
    """Not an embedding whose gradient is scaled or whose rows are, nor a norm of several axes."""
    if isinstance(layer, nn.Embedding):
        return layer.max_norm is None and not layer.scale_grad_by_freq and not layer.sparse
    return len(getattr(layer, "normalized_shape", (0,))) == 1


_RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: _linear,
    nn.Embedding: _embedding,
    nn.LayerNorm: _layer_norm,
}
if hasattr(nn, "RMSNorm"):  # torch 2.4
    _RULES[nn.RMSNorm] = _rms_norm
