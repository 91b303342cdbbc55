"""Reading stored values: each is what it must be, or the error says in a few words what it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

__all__ = [
    "Unfit",
    "entry",
    "flag",
    "items",
    "mapping",
    "matrix",
    "maybe",
    "number",
    "numbers",
    "row_ids",
    "tensor",
    "texts",
    "whole",
]

T = TypeVar("T")


class Unfit(ValueError):
    """A stored value that cannot be used, and why."""


def entry(state: Any, key: str) -> Any:
    """What is stored under a name, whatever it is.

    Raises:
        Unfit: ``state`` holds nothing by name, or not this.
    """
    if not isinstance(state, Mapping):
        raise Unfit(f"{key} was looked for in {_shown(state)}")
    if key not in state:
        raise Unfit(f"{key} is missing")
    return state[key]


def number(state: Any, key: str, least: float = -math.inf, most: float = math.inf) -> Any:
    """A finite number within bounds, as it is.

    >>> number({"spread": float("nan")}, "spread")
    Traceback (most recent call last):
    passk_guard.runtime.stored.Unfit: spread must be a finite number, got nan
    """
    value = entry(state, key)
    if not _finite(value):
        raise Unfit(f"{key} must be a finite number, got {_shown(value)}")
    if not least <= value <= most:
        bounds = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
        raise Unfit(f"{key} must be {bounds}, got {value!r}")
    return value


def whole(state: Any, key: str, least: float = 0) -> int:
    """A whole number."""
    value = entry(state, key)
    if not _is_whole(value) or value < least:
        raise Unfit(f"{key} must be a whole number, at least {least:g}, got {_shown(value)}")
    return int(value)


def flag(state: Any, key: str) -> bool:
    """``True`` or ``False``."""
    value = entry(state, key)
    if not isinstance(value, bool):
        raise Unfit(f"{key} must be True or False, got {_shown(value)}")
    return value


def mapping(state: Any, key: str) -> Mapping[str, Any]:
    """Values by name."""
    value = entry(state, key)
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise Unfit(f"{key} must hold values by name, got {_shown(value)}")
    return value


def items(state: Any, key: str, length: int | None = None) -> list[Any]:
    """A list, of that length where one is given."""
    value = entry(state, key)
    if not isinstance(value, list | tuple):
        raise Unfit(f"{key} must be a list, got {_shown(value)}")
    if length is not None and len(value) != length:
        raise Unfit(f"{key} must hold {length} values, got {len(value)}")
    return list(value)


def texts(state: Any, key: str, known: Callable[[str], bool]) -> list[str]:
    """A list of names, all of them known."""
    value = items(state, key)
    strange = next((v for v in value if not isinstance(v, str) or not known(v)), None)
    if strange is not None:
        raise Unfit(f"{key} holds {_shown(strange)}, which has no meaning here")
    return value


def numbers(state: Any, key: str, least: float = -math.inf) -> list[Any]:
    """A list of finite numbers."""
    value = items(state, key)
    strange = next((v for v in value if not _finite(v) or v < least), None)
    if strange is not None:
        raise Unfit(f"{key} must hold finite numbers, at least {least:g}, got {_shown(strange)}")
    return value


def row_ids(state: Any, key: str, rows: int | None = None) -> list[int]:
    """Row ids, of a pool of so many rows where that is known."""
    value = items(state, key)
    strange = next((v for v in value if not _is_row(v, rows)), None)
    if strange is not None:
        raise Unfit(f"{key} has row {_shown(strange)}, which {_outside(rows)}")
    return [int(v) for v in value]


def matrix(state: Any, key: str, *shape: int) -> np.ndarray:
    """Nested lists of finite numbers, as an array of one shape."""
    value = entry(state, key)
    try:
        found = np.array(value, dtype=float)
    except (TypeError, ValueError):
        found = np.array(np.nan)
    if found.shape != shape or isinstance(value, str):
        wanted = " x ".join(map(str, shape))
        raise Unfit(f"{key} must hold {wanted} numbers, got {_shown(value)}")
    if not np.isfinite(found).all():
        raise Unfit(f"{key} must hold finite numbers, got {_shown(value)}")
    return found


def tensor(
    state: Any, key: str, *shape: int | None, finite: bool = True, least: float | None = None
) -> Tensor:
    """A tensor; ``None`` in its shape stands for any length.

    Args:
        state: holds it.
        key: under this name.
        shape: lengths.
        finite: whether all of it must be finite.
        least: what none of it may be below.
    """
    value = entry(state, key)
    if not isinstance(value, Tensor):
        raise Unfit(f"{key} must be a tensor, got {_shown(value)}")
    same = len(value.shape) == len(shape) and all(
        wanted in (None, got) for wanted, got in zip(shape, value.shape, strict=True)
    )
    if not same:
        wanted = " x ".join("any" if length is None else str(length) for length in shape)
        raise Unfit(f"{key} must have the shape {wanted}, got {tuple(value.shape)}")
    if finite and not bool(value.isfinite().all()):
        raise Unfit(f"{key} must hold finite numbers, got some that are not")
    if least is not None and value.numel() and float(value.min()) < least:
        raise Unfit(f"{key} must hold numbers of at least {least:g}, got {float(value.min()):g}")
    return value


def maybe(read: Callable[..., T], state: Any, key: str, *arguments: Any) -> T | None:
    """What ``read`` gives, or the ``None`` that is stored instead."""
    return None if entry(state, key) is None else read(state, key, *arguments)


def _finite(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Integral)


def _is_row(value: Any, rows: int | None) -> bool:
    return _is_whole(value) and value >= 0 and (rows is None or value < rows)


def _outside(rows: int | None) -> str:
    return "is not a row id" if rows is None else f"is not in this pool of {rows} rows"


def _shown(value: Any) -> str:
    """Short, whatever it is."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return "values by name"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= 24 else f"{text[:21]}..."
