"""Does a guard leave training untouched? A check on your own trainer, bit by bit."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = [
    "InconclusiveError",
    "NotIdenticalError",
    "NotRepeatableError",
    "assert_bit_identical",
]

_Bits = dict[str, tuple[torch.dtype, torch.Size, bytes]]


class NotIdenticalError(AssertionError):
    """The guard changed training."""


class InconclusiveError(RuntimeError):
    """The check cannot tell: nothing was trained, or the guard did not look."""


class NotRepeatableError(InconclusiveError):
    """The check cannot tell: without a guard, too, each run ends with other weights."""


def assert_bit_identical(make_trainer: Callable[[bool], Any], *, seed: int = 0) -> None:
    """Assert that training with a guard ends with the same weights, bit for bit.

    Trains three times, twice without the guard and once with it, each time with all generators
    seeded alike, and compares every parameter and buffer of the model. A few steps are enough, as
    long as the guard looks in between: ``max_steps=6`` with ``every=2``, say. Nothing is kept but
    a digest of each tensor.

    Where two runs without a guard differ, as they may on a GPU, try it under
    ``torch.use_deterministic_algorithms(True)``.

    Args:
        make_trainer: called with ``False``, ``False`` and ``True``: whether to attach the guard,
            one that only watches (no ``objective=``, no remedy, which are meant to change
            training). It loads or makes the model afresh and returns what is ready to train:

            * a ``transformers.Trainer`` or a TRL trainer;
            * for Lightning, a tuple of the trainer and what its ``fit`` takes, the module first;
            * for a loop of your own, any object with ``model``, a method ``train()`` and, where it
              has one, the ``guard``.
        seed: for Python's, NumPy's and torch's generators.

    Raises:
        NotIdenticalError: an ``AssertionError``: the guard changed training. It says how many
            tensors differ, and which is the first.
        NotRepeatableError: the two runs without the guard differ.
        InconclusiveError: training changed no weight or made one NaN, a probe was lost, the guard
            never looked, or it was there when it should not be.

    Example:
        ::

            def make_trainer(guard):
                trainer = my_trainer(max_steps=6)  # the model loaded afresh
                if guard:
                    trainer.add_callback(PassKGuardCallback(trainer, prompts=held_out, every=2))
                return trainer


            assert_bit_identical(make_trainer)
    """
    plain = _run(make_trainer, False, seed)
    if not plain.learned:
        raise InconclusiveError("training changed no weight, or made one NaN: nothing to compare")
    again = _run(make_trainer, False, seed)
    if _differing(plain.start, again.start):
        raise NotRepeatableError(
            "two runs without the guard start from different weights: make_trainer has to load or "
            "make the model afresh each time"
        )
    if _differing(plain.end, again.end):
        raise NotRepeatableError(
            "two runs without the guard differ: training is not repeatable on this machine"
        )
    if names := _differing(plain.end, _run(make_trainer, True, seed).end):
        raise NotIdenticalError(
            f"with the guard {len(names)} of {len(plain.end)} tensors differ after training, the "
            f"first is {names[0]}"
        )


@dataclass(frozen=True)
class _Run:
    start: _Bits
    end: _Bits
    learned: bool  # whether a trained weight moved, and all are finite


def _run(make_trainer: Callable[[bool], Any], guard: bool, seed: int) -> _Run:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    made = make_trainer(guard)
    trainer, *fitted = made if isinstance(made, tuple) else (made,)
    start = _bits(fitted[0] if fitted else trainer.model)
    if fitted:
        trainer.fit(*fitted)
    else:
        trainer.train()
    model: nn.Module = fitted[0] if fitted else trainer.model
    _check_looks(_guards(trainer), guard)
    end = _bits(model)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    moved = not trained.keys().isdisjoint(_differing(start, end))
    return _Run(start, end, moved and all(bool(p.isfinite().all()) for p in trained.values()))


def _guards(trainer: Any) -> list[Any]:
    handler = getattr(trainer, "callback_handler", trainer)  # transformers keeps callbacks there
    hosts = [trainer, *getattr(handler, "callbacks", ())]
    guards = [getattr(host, "guard", None) for host in hosts]
    return [guard for guard in guards if hasattr(guard, "history")]


def _check_looks(guards: list[Any], wanted: bool) -> None:
    if bool(guards) != wanted:
        raise InconclusiveError(
            f"make_trainer({wanted}) gave a trainer {'without' if wanted else 'with'} a guard"
        )
    for guard in guards:
        if guard.failures:
            raise InconclusiveError(f"a probe was lost: {guard.failures[0].reason}")
        if not guard.history:
            raise InconclusiveError("the guard never looked: train for longer, or lower every=")


def _bits(model: nn.Module) -> _Bits:
    """By bits NaN equals itself, and 0 is not -0."""
    tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: (t.dtype, t.shape, _digest(t)) for name, t in tensors.items()}


def _digest(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().flatten().contiguous()
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).digest()


def _differing(one: _Bits, other: _Bits) -> list[str]:
    return [name for name in {**one, **other} if one.get(name) != other.get(name)]
