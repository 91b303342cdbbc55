"""``assert_bit_identical``, on a loop in plain torch."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from passk_guard.identity import InconclusiveError, NotRepeatableError, assert_bit_identical

LOOKED = {"history": ["a probe"], "failures": []}


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(3))
        self.frozen = torch.nn.Parameter(torch.zeros(()), requires_grad=False)
        self.register_buffer("mean", torch.full((2,), torch.nan))


def maker(change=lambda model, guard: None, looks=LOOKED, attached=(True,)):
    """Trains with noise from every generator, then makes a change."""

    def make(guard):
        model = Model()

        @torch.no_grad()
        def train():
            model.weight += torch.rand(3) + np.random.rand() + random.random()
            change(model, guard)

        watch = SimpleNamespace(**looks) if guard in attached else None
        return SimpleNamespace(model=model, train=train, guard=watch)

    return make


def test_a_guard_that_only_looks_passes_and_nan_equals_itself():
    asked = []

    def make(guard):
        asked.append(guard)
        return maker()(guard)

    assert_bit_identical(make)
    assert asked == [False, False, True]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("frozen", torch.tensor(-0.0)),  # one bit
        ("frozen", torch.tensor(0, dtype=torch.int32)),
        ("frozen", torch.zeros(1)),
        ("mean", torch.zeros(2)),
    ],
)
def test_a_guard_that_changes_a_bit_a_dtype_a_shape_or_a_buffer_is_found_out(name, value):
    def change(model, guard):
        if guard:
            getattr(model, name).data = value

    with pytest.raises(AssertionError, match=f"1 of 3 tensors differ .* first is {name}"):
        assert_bit_identical(maker(change))


def test_a_guard_that_adds_a_tensor_is_found_out():
    def change(model, guard):
        if guard:
            model.register_buffer("extra", torch.zeros(1))

    with pytest.raises(AssertionError, match="first is extra"):
        assert_bit_identical(maker(change))


def test_training_that_is_not_repeatable_is_another_error():
    other = iter(range(3))
    noisy = maker(lambda model, guard: model.weight.add_(next(other)))
    with pytest.raises(NotRepeatableError, match="not repeatable on this machine"):
        assert_bit_identical(noisy)


def test_a_model_that_is_not_made_afresh_is_said():
    made = maker()(False)
    with pytest.raises(NotRepeatableError, match="afresh"):
        assert_bit_identical(lambda guard: made)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda guard: SimpleNamespace(model=Model(), train=lambda: None), "changed no weight"),
        (maker(lambda model, guard: model.weight.fill_(torch.nan)), "made one NaN"),
        (maker(attached=()), r"make_trainer\(True\) gave a trainer without a guard"),
        (maker(attached=(False, True)), r"make_trainer\(False\) gave a trainer with a guard"),
        (maker(looks={**LOOKED, "history": []}), "never looked"),
        (maker(looks={**LOOKED, "failures": [SimpleNamespace(reason="oops")]}), "lost: oops"),
    ],
)
def test_a_check_that_could_not_fail_is_inconclusive(make, said):
    with pytest.raises(InconclusiveError, match=said) as caught:
        assert_bit_identical(make)
    assert not isinstance(caught.value, NotRepeatableError)
