"""Several processes: who does what, and how all of them learn of a result or of an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor, distributed

from passk_guard.errors import ProbeError, reason_of
from passk_guard.runtime.lockstep import all_or_none

A = TypeVar("A")
T = TypeVar("T")


def world() -> tuple[int, int]:
    """This process's rank, and how many there are; ``(0, 1)`` where there is one."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def everywhere(work: Callable[[], T], *, together: bool = False) -> list[T]:
    """Run ``work`` on every process and give all of them all results, by rank.

    An error on one process is raised on all: none of them waits for results that never come.

    Args:
        work: returns what can be pickled.
        together: whether processes wait for one another within ``work``.

    Raises:
        HalfDone: this one has left the others waiting within ``work``.
        Exception: this process's own.
        ProbeError: another process's, named.
    """
    _, size = world()
    if size == 1:
        return [work()]
    result: T | None = None
    error: Exception | None = None
    try:
        with all_or_none(together):
            result = work()
    except Exception as mine:
        error = mine
    said = None if error is None else reason_of(error)
    found: list[Any] = [None] * size
    distributed.all_gather_object(found, (result, said))
    if error is not None:
        raise error
    for other, (_, text) in enumerate(found):
        if text is not None:
            raise ProbeError(f"on process {other}: {text}")
    return [value for value, _ in found]


def shared(items: Sequence[A], work: Callable[[A], T], *, together: bool = False) -> list[T]:
    """``work(item)`` for every item, shared out over processes; all of them get all results.

    Each process does the same number, repeating some: sharded processes wait for one another.

    Args:
        items: alike on every process.
        work: as in :func:`everywhere`.
        together: as there.

    Raises:
        Exception: as in :func:`everywhere`.
    """
    rank, size = world()
    mine = [min(i, len(items) - 1) for i in range(rank, -(-len(items) // size) * size, size)]
    parts = everywhere(lambda: [work(items[i]) for i in mine], together=together)
    return [parts[i % size][i // size] for i in range(len(items))]


def add_up(tensor: Tensor) -> None:
    """Replace a tensor, in place and on every process, by its sum over processes."""
    if world()[1] > 1:
        distributed.all_reduce(tensor)


def decided_by_first(value: T) -> T:
    """Process 0's value, on every process."""
    if world()[1] == 1:
        return value
    values: list[Any] = [value]
    distributed.broadcast_object_list(values, src=0)
    decided: T = values[0]
    return decided
