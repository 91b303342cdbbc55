"""Tensors that say they are on a GPU: what mixes devices fails on any machine, and waits are told.

The numbers lie on the CPU, so a whole probe runs, data-dependent steps included, which fake tensors
cannot do. What a GPU refuses is refused: an operation on tensors of both kinds (but for numbers
without dimensions and for indices), ``numpy()``. What a GPU waits for is counted: values read by
Python, shapes that depend on values, copies to the CPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only

__all__ = ["GPU", "SEVERAL", "Elsewhere", "elsewhere", "gpu"]

GPU, SEVERAL = torch.device("cuda", 0), torch.device("cuda", 1)
_aten = torch.ops.aten

# Indices may lie on the CPU, wherever the indexed tensor is; and copies are what they are for.
_INDEXED = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default}
_INDEXED |= {_aten._index_put_impl_.default, _aten._unsafe_index.Tensor}
_COPIES = {_aten.copy_.default}
_WAITS = {_aten._local_scalar_dense.default, _aten.nonzero.default, _aten.equal.default}
_WAITS |= {_aten.unique_consecutive.default, _aten._unique2.default}


class Elsewhere(Tensor):
    """See the module; made by :func:`elsewhere`."""

    held: Tensor
    place: torch.device
    waits: ClassVar[Counter[str]] = Counter()

    @staticmethod
    def __new__(cls, held: Tensor, place: torch.device) -> Elsewhere:
        made: Elsewhere = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=held.device,
            requires_grad=False,
        )
        made.held, made.place = held, place
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.place

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def __repr__(self) -> str:
        return f"Elsewhere({self.held}, {self.place})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        place = _one_place(func, args, kwargs)
        if func in _WAITS or _by_mask(func, args):
            cls.waits[func.__name__.partition(".")[0]] += 1
        if isinstance(kwargs.get("device"), torch.device):
            kwargs["device"] = torch.device("cpu")

        def held(value: Elsewhere) -> Tensor:
            return value.held

        inner = tree_map_only(Elsewhere, held, (args, kwargs))
        found = tree_map_only(Tensor, lambda t: cls(t, place), func(*inner[0], **inner[1]))
        return return_and_correct_aliasing(func, args, kwargs, found)


def _by_mask(func: Any, args: Any) -> bool:
    """Masks as indices: how many there are is not known before."""
    tensors = [t for t in tree_flatten(args[1:2])[0] if isinstance(t, Tensor)]
    return func in _INDEXED and any(t.dtype in (torch.bool, torch.uint8) for t in tensors)


def _one_place(func: Any, args: Any, kwargs: Any) -> torch.device:
    """Where the result lies.

    Raises:
        RuntimeError: tensors lie on several devices.
    """
    tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
    if func in _COPIES:
        if not isinstance(args[0], Elsewhere):
            raise AssertionError("a copy to the CPU in place is not written down here")
        return args[0].place
    if func in _INDEXED and isinstance(args[0], Elsewhere):
        own = [args[0], *(t for t in tree_flatten(args[2:])[0] if isinstance(t, Tensor))]
        indices = {t.device for t in tree_flatten(args[1])[0] if isinstance(t, Tensor)}
        if not indices <= {args[0].place, torch.device("cpu")}:
            raise RuntimeError(f"{func}: indices on {indices}, indexed tensor on {args[0].place}")
        tensors = own
    places = {t.device for t in tensors if t.dim() or isinstance(t, Elsewhere)}
    if len(places) != 1:
        raise RuntimeError(
            f"{func}: expected all tensors on one device, found {sorted(map(str, places))}"
        )
    return places.pop()


class _Move(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, place: torch.device) -> Tensor:  # type: ignore[override]
        ctx.origin = tensor.device
        return _placed(tensor, place)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return _placed(gradient, ctx.origin), None


def _placed(tensor: Tensor, place: torch.device) -> Tensor:
    held = tensor.held if isinstance(tensor, Elsewhere) else tensor
    if place.type == "cpu":
        Elsewhere.waits["to the CPU"] += 1
        return held.clone()
    return Elsewhere(held.clone(), place)


def elsewhere(tensor: Tensor, place: torch.device | str = GPU) -> Tensor:
    """A copy that lies there, or here; differentiable."""
    place = torch.device(place)
    place = torch.device(place.type, place.index or 0) if place.type == "cuda" else place
    return tensor if tensor.device == place else _Move.apply(tensor, place)


class _Pretending(TorchFunctionMode):
    """Python's side: where tensors are made, moved and read."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return _moved(func, *args, **kwargs)
        if args and isinstance(args[0], Elsewhere):
            if func is Tensor.tolist:
                Elsewhere.waits["tolist"] += 1
                return args[0].held.tolist()
            if func is Tensor.numpy:
                raise TypeError("can't convert cuda:0 device type tensor to numpy")
            if func is torch.nn.functional.one_hot:  # asks in C++ where its argument lies
                return elsewhere(func(args[0].held, *args[1:], **kwargs), args[0].place)
            if func is Tensor.new_tensor:
                return elsewhere(torch.tensor(*args[1:], **kwargs), args[0].place)
        device = kwargs.get("device")
        if device is None or torch.device(device).type != "cuda":
            return func(*args, **kwargs)
        made = func(*args, **{**kwargs, "device": torch.device("cpu")})
        return made if isinstance(made, Elsewhere) else elsewhere(made, device)


def _moved(func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if func is not Tensor.to:
        return elsewhere(tensor, "cpu" if func is Tensor.cpu else "cuda")
    other = next((a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)), None)
    if other is not None:
        return elsewhere(tensor, other.device).to(other.dtype)
    places = [a for a in (*args, kwargs.pop("device", None)) if isinstance(a, str | torch.device)]
    rest = [a for a in args if not isinstance(a, str | torch.device)]
    tensor = elsewhere(tensor, places[0]) if places else tensor
    return tensor.to(*rest, **kwargs) if rest or kwargs else tensor


class _Generator(torch.Generator):
    """One on the CPU, whatever it is asked for."""

    def __new__(cls, device: Any = None) -> _Generator:
        return super().__new__(cls)


@contextmanager
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Within, ``device="cuda"`` gives such tensors; tells what a GPU was waited for."""
    engine = torch.autograd._engine_run_backward

    def backward(*args: Any, **kwargs: Any) -> Any:
        with _Pretending():  # hooks, and what checkpointing runs again: a mode is off in its own
            return engine(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "_engine_run_backward", backward)
    monkeypatch.setattr(torch, "Generator", _Generator)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 2**30))
    for name in ("memory_reserved", "memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda device: 0)
    Elsewhere.waits.clear()
    with _Pretending():
        yield Elsewhere.waits


def on_gpu(model: nn.Module, place: torch.device = GPU) -> nn.Module:
    """The model, its parameters and buffers there."""
    moved = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if parameter not in moved:  # tied
                    there = elsewhere(parameter.detach(), place)
                    moved[parameter] = nn.Parameter(there, parameter.requires_grad)
                module._parameters[name] = moved[parameter]
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else elsewhere(buffer, place)
    return model
