"""Containers, arrays, tensors and random generators within an object, to be put back as they were.

What is changed in place stays the same object, and holds again what it held::

    >>> store = {"seen": [1, 2]}
    >>> seen, snapshot = store["seen"], Snapshot([store])
    >>> seen.append(3)
    >>> snapshot.restore()
    []
    >>> store["seen"] is seen, seen
    (True, [1, 2])
"""

from __future__ import annotations

import functools
import gc
import random
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

MOST_COPIED = 2**28  # bytes of arrays and tensors

# Objects of these packages belong to the training, which knows how to go on, or to the guard.
_TRAINING = frozenset(
    {"torch", "transformers", "trl", "accelerate", "datasets", "tokenizers", "peft", "vllm"}
    | {"deepspeed", "passk_guard"}
)
_ENTERED = frozenset({"types", "collections", "queue", "argparse"})  # of the standard library
_FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType, ModuleType)
_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes, type, *_FUNCTIONS})


class Snapshot:
    """What some values hold now, at any depth.

    Entered are containers, and objects of classes that come with no library: those of the training
    itself (models, data sets, loaders, tokenizers, engines, ...) are set aside. A module or an
    optimizer is entered unless it is named as set aside.

    Args:
        values: where to begin.
        aside: objects that are not entered; of modules neither are their parts.
        packages: libraries whose objects are entered nevertheless.

    Attributes:
        copied: bytes of arrays and tensors.
        too_large: whether there was more than ``MOST_COPIED``; the rest is not copied.
        opaque: objects that hold what nobody can put back, such as files, clients and iterators.
    """

    def __init__(
        self, values: Iterable[Any], aside: Iterable[Any] = (), packages: Iterable[str] = ()
    ) -> None:
        self.copied, self.too_large, self.opaque = 0, False, list[Any]()
        self._packages = frozenset(packages)
        self._undo: list[Callable[[], object]] = []
        self._watched: list[tuple[Tensor, int | None]] = []
        self._met: dict[int, Any] = {}  # kept alive: ids are of use no longer than their objects
        for one in aside:
            parts = [*one.modules(), *one.parameters()] if isinstance(one, nn.Module) else []
            self._met.update((id(part), part) for part in (one, *parts))
        collects = gc.isenabled()
        gc.disable()  # nothing is let go here, and looking for it doubles the time
        try:
            self._walk(list(values))
        finally:
            if collects:
                gc.enable()

    def _walk(self, left: list[Any]) -> None:
        while left:
            value = left.pop()
            if type(value) not in _PLAIN and id(value) not in self._met:
                self._met[id(value)] = value
                left += self._keep(value)

    def restore(self) -> list[Tensor]:
        """Put everything back; tensors that were too large to copy, and have changed in place."""
        for undo in self._undo:
            undo()
        return [tensor for tensor, version in self._watched if _version(tensor) != version]

    def _keep(self, value: Any) -> Iterable[Any]:
        """Remember one value; what it holds."""
        if isinstance(value, Tensor):
            return self._keep_tensor(value)
        if isinstance(value, np.ndarray):
            if value.flags.writeable and self._fits(value.nbytes):
                self._undo.append(partial(np.copyto, value, value.copy()))
            return value.flat if value.dtype == object else ()
        if (setter := _generator(value)) is not None:
            self._undo.append(setter)
            return ()
        inside: list[Any] = []
        if isinstance(value, dict):
            items = list(value.items())
            self._undo.append(partial(_refill_dict, value, items))
            inside = [held for _, held in items]
        elif isinstance(value, (list, deque, set, bytearray)):
            inside = list(value)
            self._undo.append(partial(_refill, value, inside))
        elif isinstance(value, (tuple, frozenset)):
            inside = list(value)
        elif not self._is_entered(value):
            if _is_opaque(value):
                self.opaque.append(value)
            return ()
        if type(value).__module__ == "builtins":
            return inside
        attributes = {name: held for name, held in _slots(value) if name != "__dict__"}
        if attributes:
            self._undo.append(partial(_set_all, value, attributes))
        own = getattr(value, "__dict__", None)
        if own is not None and self._is_entered(value):
            inside.append(own)
            if isinstance(value, nn.Module) and not value.training:  # nobody trains it
                self._watch(value)
        return [*inside, *attributes.values()]

    def _is_entered(self, value: Any) -> bool:
        if isinstance(value, (nn.Module, torch.optim.Optimizer)):
            return True
        if isinstance(value, (Dataset, DataLoader)):
            return False
        cls: Any = type(value)
        package = cls.__module__.partition(".")[0]
        return package in self._packages or not _comes_with_a_library(cls)

    def _keep_tensor(self, tensor: Tensor) -> Iterable[Any]:
        if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout != torch.strided:
            return ()
        if tensor.is_meta:
            return ()
        if not self._fits(tensor.nbytes):
            self._watched.append((tensor, _version(tensor)))
            return ()
        here = tensor.detach()
        self._undo.append(partial(_refill_tensor, tensor, here, here.clone(), _grad(tensor)))
        return [_grad(tensor)]

    def _watch(self, module: nn.Module) -> None:
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in self._met:
                self._met[id(parameter)] = parameter
                self._watched.append((parameter, _version(parameter)))

    def _fits(self, size: int) -> bool:
        if self.copied + size > MOST_COPIED:
            self.too_large = True
            return False
        self.copied += size
        return True


def _refill_dict(value: dict[Any, Any], items: list[tuple[Any, Any]]) -> None:
    if not _same(list(value.items()), items):
        kind: Any = OrderedDict if isinstance(value, OrderedDict) else dict
        kind.clear(value)  # some classes forbid their own update
        kind.update(value, items)


def _same(now: list[tuple[Any, Any]], before: list[tuple[Any, Any]]) -> bool:
    pairs = zip(now, before, strict=False)
    return len(now) == len(before) and all(a is c and b is d for (a, b), (c, d) in pairs)


def _refill(value: Any, before: list[Any]) -> None:
    if len(value) != len(before) or any(a is not b for a, b in zip(value, before, strict=True)):
        value.clear()
        value.update(before) if isinstance(value, set) else value.extend(before)


def _set_all(value: Any, attributes: dict[str, Any]) -> None:
    for name, held in attributes.items():
        object.__setattr__(value, name, held)


def _slots(value: Any) -> Iterable[tuple[str, Any]]:
    for cls in type(value).__mro__:
        names = cls.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if hasattr(value, name) and name != "__weakref__":
                yield name, getattr(value, name)


def _refill_tensor(tensor: Tensor, here: Tensor, before: Tensor, grad: Tensor | None) -> None:
    if tensor.data_ptr() != here.data_ptr() or tensor.shape != here.shape:
        tensor.data = here
    if not torch.equal(here, before):
        with torch.inference_mode(here.is_inference()), torch.no_grad():
            here.copy_(before)
    if _grad(tensor) is not grad:
        tensor.grad = grad


def _grad(tensor: Tensor) -> Tensor | None:
    return tensor.grad if tensor.is_leaf else None


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _generator(value: Any) -> Callable[[], object] | None:
    """Sets the state of a random generator to what it is now."""
    if isinstance(value, random.Random):
        return partial(value.setstate, value.getstate())
    if isinstance(value, torch.Generator):
        return partial(value.set_state, value.get_state())
    if isinstance(value, np.random.RandomState):
        return partial(value.set_state, value.get_state())
    bits = value.bit_generator if isinstance(value, np.random.Generator) else value
    if isinstance(bits, np.random.BitGenerator):
        return partial(setattr, bits, "state", bits.state)
    return None


@functools.cache
def _comes_with_a_library(cls: Any) -> bool:
    """Whether a class comes with Python or an installed package."""
    package = cls.__module__.partition(".")[0]
    if package in sys.stdlib_module_names:
        return package not in _ENTERED and package != "__main__"
    if cls.__module__.startswith("trl.experimental"):  # trainers, and their stores
        return False
    file = getattr(sys.modules.get(cls.__module__), "__file__", None) or ""
    return package in _TRAINING or bool({"site-packages", "dist-packages"} & {*Path(file).parts})


def _is_opaque(value: Any) -> bool:
    """Not for what the training knows of, locks, functions, and what has a value instead of an
    identity, such as a date or a path."""
    cls = type(value)
    known = cls.__module__.partition(".")[0] in {*_TRAINING, "logging"}
    hashed: Any = cls.__hash__
    by_value = hashed is not None and hashed is not object.__hash__
    is_lock = hasattr(value, "acquire") and hasattr(value, "release")
    return not (known or by_value or is_lock or callable(value) or cls is object)
