"""Reward functions within a probe: what fails in one of them must not leave processes waiting."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from passk_guard.rollouts.row_faults import RowFaults, without_loop
from passk_guard.rollouts.verified_again import shared_out
from passk_guard.rollouts.verifier import checked_scores, copied, verifier_name
from passk_guard.rollouts.verifier_timeout import is_async, watched
from passk_guard.runtime.processes import everywhere


class ProbeRewards:
    """Stands before a TRL trainer's reward functions while the guard probes.

    TRL gathers rewards from all processes, so one that raised would leave the others waiting for
    ever. Here it gives zeros instead, and the error is raised on all once they have met. Each gets
    lists of its own, so that one which changes them hurts neither the next nor the pool.

    Args:
        timeout: seconds after which one that hangs is reported.

    Attributes:
        completions: this process's, as the functions got them last; ``None`` where no function
            did, or where they are scored by the environments that gave them.
        completion_ids: their tokens; ``None`` where no function did.
        rows: row id of each rollout of this process that is to be scored; one with which a function
            raises gets no score. ``None``: every error is raised.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._wrapped: dict[int, Callable[..., Any]] = {}
        self._error: Exception | None = None
        self.rows: list[int] | None = None
        self.forget()

    def forget(self) -> None:
        """Before a call of the trainer: what was scored earlier."""
        self.completions: list[Any] | None = None
        self.completion_ids: list[list[int]] | None = None

    def before(self, func: Any) -> Any:
        """The function to call instead; a reward model is left as it is."""
        if isinstance(func, torch.nn.Module):
            return func
        return self._wrapped.setdefault(id(func), self._wrap(func))

    def note(self, error: Exception) -> None:
        """Remember what went wrong on this process; the first error counts."""
        self._error = self._error or error

    def raise_errors(self) -> None:
        """Raise, on all processes, what went wrong on any since the last call."""
        error, self._error = self._error, None

        def mine() -> None:
            if error is not None:
                raise error

        everywhere(mine)

    def _wrap(self, func: Callable[..., Any]) -> Callable[..., Any]:
        told, name = watched(func, self._timeout), verifier_name(func)
        faults, waits = RowFaults(name), is_async(func)

        async def scores(prompts: Any, **arguments: Any) -> list[float]:
            whole, count = {"prompts": prompts, **arguments}, len(prompts)

            async def score(which: Sequence[int]) -> list[float]:
                found = told(**copied(_those(whole, which)))
                return checked_scores(await found if waits else found, len(which), name)

            kept = "completions" in whole and "environments" not in whole
            self.completions = copied(whole["completions"]) if kept else None
            self.completion_ids = copied(whole.get("completion_ids"))
            try:
                if self.rows is None or len(self.rows) != count:  # a subclass may add rollouts
                    return await score(range(count))
                return await faults.scores(score, self.rows)
            except Exception as error:
                self.note(error)
                return [0.0] * count

        def now(**arguments: Any) -> list[float]:
            return without_loop(scores(**arguments))

        async def later(**arguments: Any) -> list[float]:
            return await scores(**arguments)

        return functools.wraps(func, updated=())(later if waits else now)


def _those(arguments: Mapping[str, Any], which: Sequence[int]) -> dict[str, Any]:
    """Of some rollouts: whatever is a list of all of them is cut down."""
    count = len(arguments["prompts"])
    return {
        key: [value[i] for i in which] if isinstance(value, list) and len(value) == count else value
        for key, value in arguments.items()
    }


def scored_again(
    trainer: Any,
    func: Callable[..., Any],
    rows: Sequence[Mapping[str, Any]],
    completions: Sequence[Any],
    completion_ids: Sequence[list[int]],
) -> list[float]:
    """A reward function's scores of given rollouts, called as TRL calls it; processes share them.

    Args:
        trainer: whose reward function it is.
        func: the function, from :meth:`ProbeRewards.before`.
        rows: row of each rollout.
        completions: text or messages.
        completion_ids: their tokens.
    """

    def scores(mine: list[int]) -> list[float]:
        own = ("prompt", "completion", "completion_ids")
        columns = {name: [rows[i][name] for i in mine] for name in rows[0] if name not in own}
        # Older trainers have none, and their reward functions need not take any.
        names = ("log_extra", "log_metric") if hasattr(trainer, "_log_metric") else ()
        loggers = dict.fromkeys(names, _nothing)
        found = func(
            **columns,
            prompts=[rows[i]["prompt"] for i in mine],
            completions=[completions[i] for i in mine],
            completion_ids=[completion_ids[i] for i in mine],
            trainer_state=trainer.state,
            **loggers,
        )
        if not is_async(func):
            return list(found)
        # The trainer's own loop, where it runs in training.
        return list(asyncio.run_coroutine_threadsafe(found, trainer.async_loop).result())

    return shared_out(len(rows), scores)


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Stands in for the trainer's loggers."""
