"""A verifier that hangs: it is reported, and interrupted where that is possible."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from passk_guard.actions import warn
from passk_guard.errors import ProbeError
from passk_guard.verifier import verifier_name

__all__ = ["is_async", "reported_after", "watched"]


def is_async(func: Any) -> bool:
    """Whether calling it gives a coroutine."""
    return inspect.iscoroutinefunction(func) or inspect.iscoroutinefunction(
        getattr(func, "__call__", None)  # noqa: B004 - the method itself, not whether it exists
    )


def watched(verifier: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """The verifier, told on where it takes longer than ``seconds``.

    An async one is interrupted then, with a ``ProbeError``. A plain function cannot be: a warning
    says that it hangs, and its result still counts if it comes.
    """
    name = verifier_name(verifier)
    if is_async(verifier):

        @functools.wraps(verifier, updated=())
        async def interrupted(*args: Any, **kwargs: Any) -> Any:
            try:
                return await asyncio.wait_for(verifier(*args, **kwargs), seconds)
            except TimeoutError as error:
                raise ProbeError(
                    f"the verifier {name!r} gave no answer within verifier_timeout={seconds:g} s "
                    "and was interrupted"
                ) from error

        return interrupted

    @functools.wraps(verifier, updated=())
    def reported(*args: Any, **kwargs: Any) -> Any:
        with reported_after(seconds, name):
            return verifier(*args, **kwargs)

    return reported


@contextmanager
def reported_after(seconds: float, name: str) -> Iterator[None]:
    """Warn, from another thread, if the body runs for longer than ``seconds``."""
    timer = threading.Timer(seconds, _report, (seconds, name))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _report(seconds: float, name: str) -> None:
    warn(
        f"the verifier {name!r} has been running for {seconds:g} s (verifier_timeout) in a probe, "
        "and training waits for it. A plain function cannot be interrupted: if it never returns, "
        "stop the run (Ctrl-C is safe) and give the verifier a timeout of its own, or make it "
        "async, which the guard can interrupt."
    )
