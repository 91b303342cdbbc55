"""What an adapter needs of a trainer beside its public interface, checked before training."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any


@dataclass(frozen=True)
class Need:
    """An attribute, dotted where it is one of another.

    Attributes:
        name: its name.
        arguments: how many positional arguments it is called with; ``None``: it is not called, or
            only passed on.
        why: what the guard does with it.
    """

    name: str
    arguments: int | None
    why: str


def check_needs(trainer: Any, needs: Sequence[Need], package: str, supported: str) -> None:
    """Refuse a trainer that has changed under the guard.

    Args:
        trainer: it.
        needs: what the adapter uses.
        package: whose release decides.
        supported: releases, in words.

    Raises:
        RuntimeError: something is missing or takes other arguments; names it, and the release.
    """
    for need in needs:
        problem = _problem(trainer, need)
        if problem is not None:
            raise RuntimeError(
                f"{type(trainer).__name__}.{need.name} {problem} in {package} {_release(package)}, "
                f"and passk-guard needs it to {need.why}. Install a supported release "
                f"({supported}), or a newer passk-guard."
            )


def _problem(trainer: Any, need: Need) -> str | None:
    found = trainer
    for part in need.name.split("."):
        if not hasattr(found, part):
            return "is missing"
        found = getattr(found, part)
    if need.arguments is None:
        return None
    try:
        inspect.signature(found).bind(*[None] * need.arguments)
    except TypeError:
        return f"does not take {need.arguments} argument(s)"
    except ValueError:  # a builtin without a signature
        return None
    return None


def _release(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(release not known)"
