"""The event loop of async verifiers: one for the whole process, in a thread of its own.

What a verifier's module holds (a semaphore, an HTTP client, a worker) belongs to the loop in which
it was first used. With a loop for each batch the second batch fails, and with one for each run a
second run, or the other model of a comparison.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from functools import cache
from typing import Any

_PATIENCE = 2.0  # seconds for what still runs as the process ends


def finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end, also where an event loop is running here (a notebook)."""
    future = asyncio.run_coroutine_threadsafe(coroutine, _loop(os.getpid()))
    try:
        return future.result()
    finally:
        future.cancel()  # Ctrl-C


@cache
def _loop(process: int) -> asyncio.AbstractEventLoop:
    """A forked process has its parent's loop but not the thread, so it gets its own."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        started.set_result((asyncio.get_running_loop(), stop))
        await stop.wait()

    # Whatever still runs then is cancelled by asyncio.run.
    thread = threading.Thread(
        target=asyncio.run, args=(serve(),), name="passk-guard verifiers", daemon=True
    )
    thread.start()
    loop, stop = started.result()

    def close() -> None:
        if os.getpid() == process:
            loop.call_soon_threadsafe(stop.set)
            thread.join(_PATIENCE)

    atexit.register(close)
    return loop
