"""An alarm: facts, which reporting turns into words."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Alarm"]


@dataclass(frozen=True)
class Alarm:
    """A conflict between what is trained and pass@1; each kind is raised once per episode.

    Attributes:
        step: optimizer steps done.
        fired: which alarms are new: ``"alignment"``, ``"level"``, ``"level of <group>"``.
        message: one line with the figures, fit for a log.
        pass1_lost: filtered estimate of pass@1 lost since the reference, with its standard error.
        prompts: row ids that carry the conflict, most negative agreement x weight first.
    """

    step: int
    fired: tuple[str, ...]
    message: str
    pass1_lost: tuple[float, float]
    prompts: tuple[int, ...]
