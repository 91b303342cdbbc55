"""An alarm: facts, which reporting turns into words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from passk_guard.detection.cause import Cause
from passk_guard.statistics.cosine import Cosine
from passk_guard.statistics.pace import Pace
from passk_guard.statistics.track import Track


class AlarmKind(str):
    """Which alarm it is. A string, such as ``"level"`` or ``"level of maths"``, with its parts.

    Attributes:
        detector: the name that it is registered under.
        group: of prompts, with ``group_by``; ``None`` for all of them.
        leading: whether it speaks of the update that is in force, before pass@1 is lost; else of
            what is lost already.
    """

    detector: str
    group: str | None
    leading: bool

    def __new__(
        cls, detector: str, group: str | None = None, *, leading: bool = False
    ) -> AlarmKind:
        """Spell it out."""
        self = super().__new__(cls, detector if group is None else f"{detector} of {group}")
        self.detector, self.group, self.leading = detector, group, leading
        return self

    @classmethod
    def read(cls, text: str, leading: Mapping[str, bool]) -> AlarmKind:
        """From what was written into a file.

        Args:
            text: as spelt out.
            leading: by detector, which of them lead.

        >>> AlarmKind.read("level of maths", {}).group
        'maths'
        """
        detector, of, group = text.partition(" of ")
        return cls(detector, group if of else None, leading=leading.get(detector, False))


@dataclass(frozen=True)
class Alarm:
    """A conflict between what is trained and pass@1; each kind is raised once per episode.

    Attributes:
        step: optimizer steps done.
        fired: which kinds are new, see :class:`AlarmKind`.
        track: pass@1 against its floor.
        groups: the same for each group whose alarm is new.
        cause: whether the update opposes pass@1, or pass@1 falls although it does not.
        cosine: of the update in force with the pass@1 gradient, where it is known.
        pace: what pass@1 changes by at present, where it is known.
        prompts: row ids that carry the conflict, most negative agreement x weight first.
        message: one paragraph with all of it, fit for a log.
    """

    step: int
    fired: tuple[AlarmKind, ...]
    track: Track
    groups: Mapping[str, Track]
    cause: Cause
    cosine: Cosine | None
    pace: Pace | None
    prompts: tuple[int, ...]
    message: str = field(default="", repr=False)
