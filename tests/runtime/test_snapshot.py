"""A snapshot puts back what is changed in place, at any depth."""

from __future__ import annotations

import random
from collections import OrderedDict, UserDict, defaultdict, deque

import numpy as np
import pytest
import torch

from passk_guard.runtime import snapshot
from passk_guard.runtime.snapshot import Snapshot


class Plain:
    def __init__(self, **attributes):
        vars(self).update(attributes)


class Slotted:
    __slots__ = ("items",)


def change_order(value):
    value.move_to_end("a")


def scramble(value):
    value.next = [value]
    del value.items[0]


def swap_storage(value):
    value.data = torch.ones(5)


def train(module):
    module(torch.ones(1, 2)).sum().backward()
    torch.optim.SGD(module.parameters(), lr=1.0).step()


CASES = {
    "list": (lambda: [1, [2]], lambda v: v[1].append(3)),
    "dict": (lambda: {"a": {"b": 1}}, lambda v: v["a"].clear()),
    "order": (lambda: OrderedDict(a=1, b=2), change_order),
    "default": (lambda: defaultdict(list), lambda v: v["new"].append(1)),
    "deque": (lambda: deque([1, 2], maxlen=2), lambda v: v.append(3)),
    "set": (lambda: {1, 2}, lambda v: v.add(3)),
    "bytes": (lambda: bytearray(b"ab"), lambda v: v.extend(b"c")),
    "tuple": (lambda: ([1], 2), lambda v: v[0].append(3)),
    "user dict": (lambda: UserDict(a=1), lambda v: v.pop("a")),
    "empty object": (Plain, lambda v: setattr(v, "new", 1)),
    "object": (lambda: Plain(items=[1, 2]), scramble),
    "array": (lambda: np.arange(3.0), lambda v: v.__iadd__(1)),
    "array of objects": (lambda: np.array([[1], None], object), lambda v: v[0].append(2)),
    "tensor": (lambda: torch.tensor([1.0, torch.nan]), lambda v: v.add_(1)),
    "half": (lambda: torch.ones(2, dtype=torch.bfloat16), lambda v: v[0].zero_()),
    "view": (lambda: [base := torch.zeros(4), base[1:]], lambda v: v[1].add_(1)),
    "storage": (lambda: torch.zeros(3), swap_storage),
    "module": (lambda: torch.nn.Linear(2, 2), train),
    "python chance": (lambda: random.Random(0), lambda v: v.random()),
    "numpy chance": (lambda: np.random.default_rng(0), lambda v: v.random()),
    "old numpy chance": (lambda: np.random.RandomState(0), lambda v: v.rand()),
    "torch chance": (torch.Generator, lambda v: torch.rand(2, generator=v)),
}


def shown(value):
    """What is in a value, as text."""
    if isinstance(value, torch.nn.Module):
        return [(shown(p), p.grad) for p in value.parameters()]
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, torch.Generator):
        return value.get_state().tolist()
    if isinstance(value, (random.Random, np.random.RandomState)):
        return repr(getattr(value, "getstate", getattr(value, "get_state", None))())
    return repr(vars(value) if isinstance(value, Plain) else value)


@pytest.mark.parametrize("case", CASES)
def test_put_back_by_identity(case):
    make, change = CASES[case]
    value = make()
    kept, before = [value], shown(value)
    taken = Snapshot([kept])
    change(value)
    assert shown(value) != before
    assert taken.restore() == []
    assert kept[0] is value
    assert shown(value) == before


def test_a_slot_and_a_loop_of_references():
    value = Slotted()
    value.items = [value]
    taken = Snapshot([value])
    value.items = None
    taken.restore()
    assert value.items == [value]


def test_a_defaultdict_keeps_its_factory_and_a_deque_its_length():
    value = [defaultdict(list), deque([1], maxlen=1)]
    taken = Snapshot([value])
    value[0]["x"].append(1)
    value[1].append(2)
    taken.restore()
    assert value[0]["new"] == []
    assert value[1] == deque([1])
    assert value[1].maxlen == 1


def test_what_is_set_aside_is_not_entered():
    model, kept = torch.nn.Linear(2, 2), [1]
    taken = Snapshot([{"head": model, "kept": kept}], aside=[model, kept])
    train(model)
    kept.append(2)
    taken.restore()
    assert kept == [1, 2]
    assert model.weight.grad is not None
    assert taken.copied == 0


def test_unchanged_tensors_are_not_written():
    value = torch.ones(2)
    version = value._version
    Snapshot([value]).restore()
    assert value._version == version


def test_beyond_the_limit_tensors_are_watched(monkeypatch):
    monkeypatch.setattr(snapshot, "MOST_COPIED", 100)
    large, small = torch.zeros(100), torch.zeros(2)
    taken = Snapshot([[large, small]])
    assert taken.too_large
    assert taken.copied == 8
    assert taken.restore() == []
    large.add_(1)
    small.add_(1)
    assert [tensor.numel() for tensor in taken.restore()] == [100]
    assert small.tolist() == [0, 0]


def test_a_frozen_model_of_the_trainers_own_is_not_copied():
    taken = Snapshot([torch.nn.Linear(100, 100).eval()])
    assert taken.copied == 0
    assert not taken.too_large
