"""Layers are watched while a batch passes: their inputs and their outputs' gradients go to a sink.

``torch.autograd.grad`` is asked for the gradient of the first activations only. It passes through
every layer on its way, computes no parameter's gradient, and reaches none of the accumulators where
trainers, optimisers and ZeRO have their hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from passk_guard.gradients.layers import Feed, Names, Rule, Sink, rule_of
from passk_guard.rollouts.token_rows import rows_of_tokens

Layers = Mapping[nn.Module, tuple[Rule, Names]]


def known_layers(model: nn.Module, parameters: Sequence[tuple[str, Parameter]]) -> Layers:
    """Layers that hold any of the parameters and whose gradients are known from their factors."""
    names = {id(parameter): name for name, parameter in parameters}
    layers = {}
    for module in model.modules():
        own = {
            key: names[id(parameter)]
            for key, parameter in module._parameters.items()
            if parameter is not None and id(parameter) in names
        }
        rule = rule_of(module) if own else None
        if rule is not None:
            layers[module] = rule, own
    return layers


class Watch:
    """Feeds a sink from all known layers of a model, one batch after the other.

    Args:
        model: whose layers are called, in whatever wrapping.
        layers: from :func:`known_layers`.
        sink: takes the factors.
        others: parameters whose gradients are taken as they are.
        spread: where positions are looked up once for all rollouts, give each its own view of them.

    Attributes:
        spreads: whether that was done.
        half: whether any layer computes in half precision.
        unattributed: parameters of layers that did not show which rollout is where, and gave
            nothing. Experts see the tokens that were routed to them.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Layers,
        sink: Sink,
        others: Sequence[tuple[str, Parameter]] = (),
        *,
        spread: bool = True,
    ) -> None:
        self._model, self._layers, self._sink, self._others = model, layers, sink, others
        self._batch: tuple[Tensor, int] | None = None  # while a forward runs
        self._placed: dict[tuple[Any, ...], Tensor] = {}  # the batch's owners
        self._first: list[Tensor] = []
        self._noted: nn.Module | None = None  # its output is the last of these
        self.unattributed: set[str] = set()
        self._spread, self.spreads, self.half = spread, False, False

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Within, layers are watched; after, no hook is left."""
        how = {"with_kwargs": True}
        handles = [
            layer.register_forward_hook(self._watch, prepend=True, **how) for layer in self._layers
        ]
        # After others' hooks, of which some make a frozen embedding's output require gradients.
        handles += [
            module.register_forward_hook(self._note_first, **how)
            for module in self._model.modules()
            if module in self._layers or not any(True for _ in module.children())
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def take(
        self, owners: Tensor, width: int, loss: Callable[[], tuple[Tensor, Tensor]]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """One forward and backward.

        Args:
            owners: ``(b,)`` each rollout's prompt, as the sink counts them.
            width: tokens of a rollout.
            loss: runs the forward; gives the loss, and log-probs, which are passed on.

        Returns:
            The gradients of ``others`` by name, and the log-probs.
        """
        self._batch, self._placed, self._first = (owners, width), {}, []
        try:
            value, found = loss()
        finally:
            self._batch = None  # what checkpointing runs again was seen already
            first, self._first = self._first, []
        wanted = [*first, *(parameter for _, parameter in self._others)]
        if not wanted or not value.requires_grad:
            return {}, found
        with torch.autocast(value.device.type, enabled=False):  # factors are taken as they are
            gradients = torch.autograd.grad(value, wanted, allow_unused=True)[len(first) :]
        names = (name for name, _ in self._others)
        return {n: g for n, g in zip(names, gradients, strict=True) if g is not None}, found

    def _note_first(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        """Where the path of gradients ends: an output that has one, from inputs that have none."""
        if self._batch is None or not isinstance(output, Tensor) or not output.requires_grad:
            return
        # What others made of an output that is known already, as ZeRO-3 does, ends too early.
        noted, self._noted = self._noted, None
        if noted is not module and not any(v.requires_grad for v in _tensors(args, kwargs)):
            self._first.append(output)

    def _watch(
        self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Tensor | None:
        inputs = _tensors(args, kwargs)
        if self._batch is None or not isinstance(output, Tensor) or not output.requires_grad:
            return None
        if not inputs:
            return None
        if not any(value.requires_grad for value in inputs):
            self._first.append(output)
            self._noted = layer
        rule, names = self._layers[layer]
        x, many = inputs[0], len(self._batch[0])
        self.half |= output.dtype.itemsize == 2
        wider = None
        if self._spread and isinstance(layer, nn.Embedding) and len(x) == 1 < many:
            x, wider = (t.expand(many, *t.shape[1:]) for t in (x, output))
            self.spreads = True
        self._feed(partial(rule, layer, names), names, x, output if wider is None else wider)
        return wider

    def _feed(self, rule: Callable[..., Feed], names: Names, x: Tensor, output: Tensor) -> None:
        leading = x.shape if not x.is_floating_point() else x.shape[:-1]
        owners, flat = self._owners(leading, output.device)
        if owners is None:
            self.unattributed.update(names.values())
            return

        def by_rollout(values: Tensor) -> Tensor:
            return values.detach().unsqueeze(1) if flat else values.detach()

        with torch.no_grad(), torch.autocast(output.device.type, enabled=False):
            # accelerate moves a layer's input, where a model is spread over devices, after hooks.
            feed = rule(by_rollout(x.to(output.device)), owners, self._sink)
        output.register_hook(lambda gradient: feed(by_rollout(gradient)))

    def _owners(self, leading: torch.Size, device: torch.device) -> tuple[Tensor | None, bool]:
        """Whose each row of a layer's input is, and whether rows are single tokens."""
        assert self._batch is not None
        owners, width = self._batch
        rows = rows_of_tokens()
        if rows is not None and leading == (len(rows),):
            return self._on(device, 1)[rows.to(device)], True
        if leading == (len(owners) * width,):
            return self._on(device, width), True
        if len(leading) > 1 and leading[0] == len(owners):
            return self._on(device, 1), False
        return None, False

    def _on(self, device: torch.device, times: int) -> Tensor:
        """The batch's owners, each so many times: one tensor for all layers that ask."""
        assert self._batch is not None
        if (device, times) not in self._placed:
            self._placed[device, times] = self._batch[0].to(device).repeat_interleave(times)
        return self._placed[device, times]


def _tensors(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    return [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
