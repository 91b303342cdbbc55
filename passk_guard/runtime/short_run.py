"""A run that is short for its budget: what its first look may cost, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass

_MOST = 3.0  # times the budget, without a word


@dataclass(frozen=True)
class FirstLook:
    """What the first look will cost, by what its first batch has cost.

    Attributes:
        batches: to take the reference from, the first one included.
        seconds: of the whole look.
        budget: seconds that the run's steps allow for all looks.
        over: whether the look exceeds the budget more than threefold all the same.
    """

    batches: int
    seconds: float
    budget: float
    over: bool


def plan_first_look(
    first: float, more: float, wanted: int, budget: float, *, may_shrink: bool
) -> FirstLook:
    """As many reference batches as keep the look within three times the budget, one at least.

    Args:
        first: seconds that the look has taken so far, with its first batch.
        more: seconds that each further batch will take.
        wanted: batches.
        budget: seconds for all looks of the run.
        may_shrink: whether fewer batches than wanted will do.

    >>> plan_first_look(10.0, 5.0, 4, budget=6.0, may_shrink=True)
    FirstLook(batches=2, seconds=15.0, budget=6.0, over=False)
    """
    batches = wanted
    if may_shrink:
        affordable = 1 + int(max(_MOST * budget - first, 0.0) / max(more, 1e-9))
        batches = max(1, min(wanted, affordable))
    seconds = first + (batches - 1) * more
    return FirstLook(batches, seconds, budget, over=seconds > _MOST * budget)
