"""Checks of single arguments: each gives the value as a plain Python one, or says what is wrong."""

from __future__ import annotations

import inspect
import math
import re
from numbers import Integral, Real
from typing import Any

import numpy as np


def check_whole(name: str, value: Any, least: int) -> int:
    """A whole number. NumPy integers count; bools do not.

    Raises:
        ValueError: it is not one, or below ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be a whole number, at least {least}, got {value!r}.")
    return int(value)


def check_between(name: str, value: Any, low: float, high: float) -> int | float:
    """A number above ``low`` and below ``high``, both left out.

    Raises:
        ValueError: it is not one, is NaN, or lies outside.
    """
    if not _is_number(value) or not low < value < high:
        raise ValueError(f"{name} must lie between {max(low, 0):g} and {high:g}, got {value!r}.")
    return _plain(value)


def check_one_of(
    name: str, value: Any, allowed: tuple[str, ...], *, or_none: bool = False, extra: str = ""
) -> str:
    """One of some names.

    Raises:
        ValueError: it is not one of them.
    """
    if not isinstance(value, str) or value not in allowed:
        choices = ", ".join(repr(a) for a in allowed) + (" or None" if or_none else "") + extra
        raise ValueError(f"{name}={value!r} is not known. Choose {choices}.")
    return value


def check_call(name: str, func: Any, arguments: str) -> None:
    """A callable that takes these arguments, named with commas between.

    Raises:
        ValueError: it takes others.
    """
    try:
        signature = inspect.signature(func)
    except (TypeError, ValueError):
        return  # some built-in ones have none
    try:
        signature.bind(*arguments.split(", "))
    except TypeError as error:
        raise ValueError(f"{name}={func!r} is called as f({arguments}), but: {error}.") from None


def check_bytes(name: str, value: Any) -> int | float:
    """A number of bytes above 0.

    Raises:
        ValueError: it is text, a bool, NaN, or not above 0.
    """
    if not _is_number(value) or not value > 0:
        raise ValueError(
            f"{name} must be a number of bytes above 0, got {value!r}. For 4 GiB write "
            f"{name}=4 * 2**30, in YAML 4294967296."
        )
    return _plain(value)


def check_column(name: str, value: Any) -> str | None:
    """The name of a column, or ``None``.

    Raises:
        ValueError: it is neither.
    """
    if value is not None and not (isinstance(value, str) and value):
        raise ValueError(f"{name} must be the name of one column of prompts, got {value!r}.")
    return value


def check_filter(name: str, value: Any) -> Any:
    """A regular expression, a callable or ``None``.

    Raises:
        ValueError: it is none of these, the expression is broken, or the callable does not take
            two arguments.
    """
    if callable(value):
        check_call(name, value, "name, parameter")
    if value is None or callable(value):
        return value
    if not isinstance(value, str):
        raise ValueError(
            f"{name} must be a regular expression, a callable f(name, parameter) or None, got "
            f"{value!r}. For several parts of the model write 'first|second'."
        )
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(
            f"{name}={value!r} is not a valid regular expression: {error}. Escape special "
            "characters with a backslash."
        ) from None
    return value


def check_flag(name: str, value: Any) -> bool:
    """``True`` or ``False``.

    Raises:
        ValueError: it is neither.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False, got {value!r}.")
    return bool(value)


def check_threshold(value: Any) -> int | float:
    """``success_threshold``: a finite number.

    Raises:
        ValueError: it is not one.
    """
    if not _is_number(value) or not math.isfinite(value):
        raise ValueError(
            f"success_threshold must be a finite number, the reward from which a rollout is right, "
            f"got {value!r}. For rewards of 0 and 1 leave it at 0.5."
        )
    return _plain(value)


def check_sampling(temperature: Any) -> int | float | None:
    """``temperature`` of the probe's rollouts: a finite number above 0, or ``None``.

    Raises:
        ValueError: it is neither.
    """
    if temperature is None:
        return None
    if not _is_number(temperature) or not 0 < temperature < math.inf:
        raise ValueError(
            f"temperature must be above 0, got {temperature!r}. A policy gradient needs sampled "
            "rollouts, not greedy ones: pass a number such as 1.0, or leave it out."
        )
    return _plain(temperature)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _plain(value: Any) -> int | float:
    """NumPy's numbers as Python's, which can be written to JSON."""
    if isinstance(value, Integral):
        return int(value)
    return float(value)
