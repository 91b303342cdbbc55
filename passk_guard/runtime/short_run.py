"""A run that is short for its budget: what its first look may cost, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass

_MOST = 3.0  # times the budget, without a word


@dataclass(frozen=True)
class FirstLook:
    """What the first look will cost, by what its first chunk of prompts has cost.

    Attributes:
        chunks: of the reference's prompts, the first one included.
        wanted: chunks of a run that is long enough.
        seconds: of the whole look.
        budget: seconds that the run's steps allow for all looks.
        over: whether the look exceeds the budget more than threefold all the same.
    """

    chunks: int
    wanted: int
    seconds: float
    budget: float
    over: bool


def plan_first_look(each: float, wanted: int, budget: float) -> FirstLook:
    """As many chunks of prompts as keep the look within three times the budget, one at least.

    Args:
        each: seconds that a chunk takes.
        wanted: chunks.
        budget: seconds for all looks of the run.

    >>> plan_first_look(5.0, 8, budget=6.0)
    FirstLook(chunks=3, wanted=8, seconds=15.0, budget=6.0, over=False)
    """
    chunks = max(1, min(wanted, int(_MOST * budget / max(each, 1e-9))))
    seconds = chunks * each
    return FirstLook(chunks, wanted, seconds, budget, over=seconds > _MOST * budget)
