"""A vLLM server within a probe: one that dies or hangs costs the probe, not the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from passk_guard.runtime.isolation import kept_attributes

__all__ = ["impatient"]


@contextmanager
def impatient(client: Any, patience: float) -> Iterator[None]:
    """Within, no answer of the server is waited for longer than this.

    TRL waits for ever, and would ask five times more.

    Args:
        client: TRL's, with a session of ``requests``; ``None`` on the processes that have none.
        patience: seconds without a byte.
    """
    session = getattr(client, "session", None)
    if session is None:
        yield
        return
    with ExitStack() as stack:
        for adapter in session.adapters.values():
            stack.enter_context(kept_attributes(adapter, "max_retries"))
            adapter.max_retries = adapter.max_retries.new(read=0)
        own = vars(session).get("request")
        session.request = partial(session.request, timeout=patience)
        try:
            yield
        finally:
            del session.request
            if own is not None:
                session.request = own
