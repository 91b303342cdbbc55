"""A verifier that hangs: it is reported, and interrupted where that is possible."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from passk_guard.errors import ProbeError, warn
from passk_guard.rollouts.verifier import verifier_name


def is_async(func: Any) -> bool:
    """Whether calling it gives a coroutine."""
    return inspect.iscoroutinefunction(func) or inspect.iscoroutinefunction(
        getattr(func, "__call__", None)  # noqa: B004 - the method itself, not whether it exists
    )


def watched(verifier: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """The verifier, reported where a call takes longer than ``seconds``.

    An async one is interrupted then, with a ``ProbeError``. A plain function cannot be: a warning
    says that it hangs, and its result still counts if it comes.
    """
    name = verifier_name(verifier)
    if is_async(verifier):

        @functools.wraps(verifier, updated=())
        async def interrupted(*args: Any, **kwargs: Any) -> Any:
            limit = asyncio.timeout(seconds)
            try:
                async with limit:
                    return await verifier(*args, **kwargs)
            except TimeoutError as error:
                if not limit.expired():  # the verifier's own
                    raise
                raise ProbeError(
                    f"the verifier {name!r} gave no answer within verifier_timeout={seconds:g} s "
                    "and was interrupted"
                ) from error

        return interrupted

    watch = _Watch(seconds, name)

    @functools.wraps(verifier, updated=())
    def reported(*args: Any, **kwargs: Any) -> Any:
        with watch.over_a_call():
            return verifier(*args, **kwargs)

    return reported


class _Watch:
    """Warns, from another thread, of a call that takes long; once until one is quick again."""

    def __init__(self, seconds: float, name: str) -> None:
        self._seconds, self._name = seconds, name
        self._told = False

    @contextmanager
    def over_a_call(self) -> Iterator[None]:
        rang = threading.Event()
        timer = threading.Timer(self._seconds, self._ring, (rang,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            self._told = rang.is_set()

    def _ring(self, rang: threading.Event) -> None:
        rang.set()
        if not self._told:
            warn(
                f"the verifier {self._name!r} has been running for {self._seconds:g} s "
                "(verifier_timeout) in a probe, and training waits for it. A plain function cannot "
                "be interrupted: if it never returns, stop the run (Ctrl-C is safe) and give the "
                "verifier a timeout of its own, or make it async, which the guard can interrupt."
            )
