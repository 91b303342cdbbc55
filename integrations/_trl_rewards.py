"""Reward functions within a probe: what fails in one of them must not leave processes waiting."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from passk_guard.rollouts.verifier import checked_scores, copied, verifier_name
from passk_guard.rollouts.verifier_timeout import is_async, watched
from passk_guard.runtime.processes import everywhere

__all__ = ["ProbeRewards"]


class ProbeRewards:
    """Stands before a TRL trainer's reward functions while the guard probes.

    TRL gathers rewards from all processes, so one that raised would leave the others waiting for
    ever. Here it gives zeros instead, and the error is raised on all once they have met. Each gets
    lists of its own, so that one which changes them hurts neither the next nor the pool.

    Args:
        timeout: seconds after which one that hangs is reported.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._wrapped: dict[int, Callable[..., Any]] = {}
        self._error: Exception | None = None

    def before(self, func: Any) -> Any:
        """The function to call instead; a reward model is left as it is."""
        if isinstance(func, torch.nn.Module):
            return func
        return self._wrapped.setdefault(id(func), self._wrap(func))

    def raise_errors(self) -> None:
        """Raise, on all processes, what went wrong on any since the last call."""
        error, self._error = self._error, None

        def mine() -> None:
            if error is not None:
                raise error

        everywhere(mine)

    def _wrap(self, func: Callable[..., Any]) -> Callable[..., Any]:
        told, name = watched(func, self._timeout), verifier_name(func)

        def failed(error: Exception, prompts: Any) -> list[float]:
            self._error = self._error or error
            return [0.0] * len(prompts)

        if is_async(func):

            @functools.wraps(func, updated=())
            async def later(*, prompts: Any, **arguments: Any) -> list[float]:
                try:
                    found = await told(**copied({"prompts": prompts, **arguments}))
                    return checked_scores(found, len(prompts), name)
                except Exception as error:
                    return failed(error, prompts)

            return later

        @functools.wraps(func, updated=())
        def now(*, prompts: Any, **arguments: Any) -> list[float]:
            try:
                found = told(**copied({"prompts": prompts, **arguments}))
                return checked_scores(found, len(prompts), name)
            except Exception as error:
                return failed(error, prompts)

        return now
