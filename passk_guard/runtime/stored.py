"""What a checkpoint keeps of an object, and how it is read back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

_KINDS: tuple[type, ...] = (bool, Real, str, dict, list)


class Unfit(ValueError):
    """A stored value that cannot be used, and why."""


class Stored:
    """Keeps its attributes named in ``_stored`` in a checkpoint, without leading underscores.

    They are plain values, arrays, or objects with a ``state_dict`` of their own, also in a dict.
    """

    _stored: ClassVar[tuple[str, ...]] = ()

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on after a resume, as plain values and tensors."""
        return {name.lstrip("_"): _plain(getattr(self, name)) for name in self._stored}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave.

        Raises:
            Unfit: a value is of another kind or shape; those before it are taken over.
            KeyError: a value is missing; likewise.
        """
        for name in self._stored:
            key = name.lstrip("_")
            setattr(self, name, _taken(getattr(self, name), state[key], key))


def _plain(value: Any) -> Any:
    if hasattr(value, "state_dict"):
        return value.state_dict()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _taken(now: Any, value: Any, key: str) -> Any:
    """A stored value in the place of the present one, whose kind it must have."""
    if hasattr(now, "load_state_dict"):
        now.load_state_dict(value)
        return now
    if value is None or now is None:
        return value
    if isinstance(now, np.ndarray):
        found = np.array(value, float)
        if found.shape != now.shape:
            raise Unfit(f"{key} must have the shape {now.shape}, got {found.shape}")
        return found
    kind = next(kind for kind in _KINDS if isinstance(now, kind))
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        raise Unfit(f"{key} must be a {kind.__name__}, got {value!r:.40}")
    if isinstance(value, Mapping):
        return {name: _taken(now.get(name), one, name) for name, one in value.items()}
    return value


def check_finite(state: Any, key: str = "it") -> None:
    """See that there is no NaN among plain numbers, at any depth.

    >>> check_finite({"probe": [1.0, float("nan")]})
    Traceback (most recent call last):
    passk_guard.runtime.stored.Unfit: probe must be finite, got nan
    """
    if isinstance(state, float) and not math.isfinite(state):
        raise Unfit(f"{key} must be finite, got {state}")
    if isinstance(state, Mapping):
        for name, value in state.items():
            check_finite(value, str(name))
    elif isinstance(state, list | tuple):
        for value in state:
            check_finite(value, key)


def tensor(state: Mapping[str, Any], key: str, *shape: int, finite: bool = True) -> Tensor:
    """A stored tensor of one shape.

    Args:
        state: values by name.
        key: name of the tensor.
        shape: lengths.
        finite: whether NaN and infinite values are refused.

    Raises:
        Unfit: it is none, or of another shape, or not finite.
    """
    value = state[key]
    if not isinstance(value, Tensor) or value.shape != shape:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise Unfit(f"{key} must be a tensor of shape {shape}, got {got}")
    if finite and not bool(value.isfinite().all()):
        raise Unfit(f"{key} must be finite")
    return value
