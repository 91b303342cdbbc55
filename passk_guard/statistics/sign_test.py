"""When a probe looks, what chance of error each look may spend, how many prompts it needs."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

from passk_guard.statistics.alignment import symmetric_kernel
from passk_guard.statistics.first_test import FirstTest, first_threshold
from passk_guard.statistics.variance import VarianceParts, variance_parts

_SMALLEST_LOOK = 128  # prompts
_FIRST = 0.8  # of what is left, for each round: most probes have one
_EARLY = 0.25  # of what a round may spend, for all its looks but the last
_POWER = NormalDist().inv_cdf(0.8)
_MOST_NEEDED = 1_000_000


def look_sizes(prompts: int, at_once: int) -> list[int]:
    """Prompts at which to look when a probe may stop early: doubling, the last one all of them.

    Each look takes the gradients of all prompts so far anew, so that pairs across batches count:
    twice the work of one look at most.

    >>> look_sizes(512, 64)
    [128, 256, 512]
    >>> look_sizes(100, 64)
    [100]
    """
    sizes = [prompts]
    while (half := -(-sizes[0] // 2)) >= max(_SMALLEST_LOOK, at_once):
        sizes.insert(0, -(-half // at_once) * at_once)
        if sizes[0] >= sizes[1]:  # rounded up to whole batches
            del sizes[0]
            break
    return sizes


def chance_of_look(chance: float, round_: int, look: int, looks: int) -> float:
    """What one look may spend of the chance of ever finding the wrong sign.

    The chances of all looks add up to ``chance`` at most, however often a probe is continued
    (Bonferroni's inequality: it holds whatever the looks have in common). The first round, a run of
    the command, has four fifths of it, the next one four fifths of what is left, and so on. Looks
    within a round at which it may stop early share a quarter of that, and the last one has the
    rest; a round of one look has it all.

    Args:
        chance: over all looks, such as .05.
        round_: from 1 on.
        look: within the round, from 1 on.
        looks: of the round.

    >>> [round(chance_of_look(0.05, 1, look, 3), 3) for look in (1, 2, 3)]
    [0.005, 0.005, 0.03]
    """
    of_round = chance * _FIRST * (1 - _FIRST) ** (round_ - 1)
    if looks == 1:
        return of_round
    return of_round * (1 - _EARLY) if look == looks else of_round * _EARLY / (looks - 1)


def prompts_needed(gramian: Any, weights: Any, test: FirstTest) -> int | None:
    """Prompts in all that would probably settle the sign, if it is as estimated.

    The two parts of the variance hold for any number of prompts
    (:class:`~passk_guard.statistics.variance.VarianceParts`); what the test's own z falls short of
    ``inner / se`` by is taken to stay.

    Args:
        gramian: ``(m, m)``.
        weights: ``(m,)``.
        test: of the same.

    Returns:
        ``None`` beyond a million prompts, or where nothing was seen.
    """
    H = symmetric_kernel(gramian, weights)
    parts, m = variance_parts(H), len(H)
    now = parts.kept_at(m)
    if now <= 0 or test.z == 0 or test.inner == 0:
        return None
    short = min(abs(test.z) / (abs(test.inner) / math.sqrt(now)), 1.0)
    return size_for(parts, short * test.inner, test.chance, max(m, 32))


def size_for(parts: VarianceParts, inner: float, chance: float, least: int) -> int | None:
    """Prompts at which ``inner / se`` finds its sign with a power of 80 %, to two digits.

    Args:
        parts: of the variance.
        inner: the truth.
        chance: of a wrong sign.
        least: so many are there already.

    Returns:
        ``None`` beyond a million.
    """
    size = least
    while size <= _MOST_NEEDED:
        variance = parts.kept_at(size)
        z = abs(inner) / math.sqrt(variance) if variance > 0 else math.inf
        if z >= first_threshold(chance, size) + _POWER:
            return _rounded(size)
        size = math.ceil(1.05 * size)
    return None


def _rounded(size: int) -> int:
    """Two digits, upwards: it is a guess."""
    unit = int(10 ** max(len(str(size)) - 2, 0))
    return -(-size // unit) * unit
