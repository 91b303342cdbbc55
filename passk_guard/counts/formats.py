"""The formats that counts are read from, by name: a registry, and what an entry has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from passk_guard.counts.counts import Counts
from passk_guard.counts.source import Source
from passk_guard.runtime.registry import Registry


@dataclass(frozen=True)
class Choices:
    """What a user says of a file beyond its path; ``None`` where nothing was said.

    Attributes:
        metric: which of several scores decides.
        filter: which of several ways to read an answer.
        threshold: score from which a rollout is right.
    """

    metric: str | None = None
    filter: str | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Format:
    """One way to write counts down.

    Attributes:
        what: it is, for messages.
        recognises: whether a source is written so, by its content.
        read: the counts of a source.
        takes: which of the :class:`Choices` mean something here.
    """

    what: str
    recognises: Callable[[Source], bool]
    read: Callable[[Source, Choices], Counts]
    takes: frozenset[str] = frozenset()


FORMATS = Registry[Format]("format")


def register_format(name: str, format: Format) -> None:
    """Add a format; :func:`read_counts` then finds it, and ``format=name`` forces it.

    Raises:
        ValueError: the name is no plain word, or stands for another format.
    """
    FORMATS.register(name, format)
