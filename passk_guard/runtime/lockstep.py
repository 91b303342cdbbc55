"""Where processes wait for one another in every pass: an error on one of them is never a hang.

A process that fails alone has left the others in the middle of a gather, which nobody can undo.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed

from passk_guard.errors import HalfDone, reason_of

_PATIENCE = 60.0  # seconds, for the others to fail as well

_failed = 0  # errors on this process so far


@contextmanager
def all_or_none(together: bool = True) -> Iterator[None]:
    """Within, an error on all processes is an error; one on some of them ends the run.

    Args:
        together: whether processes wait for one another here; else nothing is done.

    Raises:
        HalfDone: others have not failed; they wait.
    """
    global _failed
    try:
        yield
    except Exception as error:
        if not together or not _are_many():
            raise
        _failed += 1
        reason = _given_up(f"process {distributed.get_rank()}: {reason_of(error)}")
        if reason is None:
            raise
        raise HalfDone(
            "passk-guard: one process failed where processes wait for one another, and left the "
            f"others in the middle. The run cannot go on. Reason: on {reason}"
        ) from error


def _are_many() -> bool:
    there = distributed.is_available() and distributed.is_initialized()
    return there and distributed.get_world_size() > 1


def _given_up(mine: str) -> str | None:
    """Why the run is over, on whichever process that began; ``None`` where all have failed alike.

    The first to give up leaves its reason: what the others come to see is only that it is gone.
    """
    try:
        store = distributed.distributed_c10d._get_default_store()
        key = f"passk_guard/failed/{_failed}"
        store.add(key, 1)
        end = time.monotonic() + _PATIENCE
        while not store.check([f"{key}/why"]):
            if store.add(key, 0) >= distributed.get_world_size():
                return None
            if time.monotonic() > end:
                store.set(f"{key}/why", mine)
                return mine
            time.sleep(0.05)
        why: str = store.get(f"{key}/why").decode()
    except Exception:  # the store went with the process that kept it
        return mine
    return why
