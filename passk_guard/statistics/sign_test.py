"""Would a pass@k step lower pass@1 or raise it? A test that may be looked at more than once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from passk_guard.statistics.alignment import symmetric_kernel
from passk_guard.statistics.first_test import first_threshold, first_z
from passk_guard.statistics.variance import VarianceParts, variance_parts

_SMALLEST_LOOK = 128  # prompts
_FIRST = 0.8  # of what is left, for each round: most probes have one
_EARLY = 0.25  # of what a round may spend, for all its looks but the last
_POWER = NormalDist().inv_cdf(0.8)
_MOST_NEEDED = 1_000_000


@dataclass(frozen=True)
class SignTest:
    """The sign of ``⟨∇J_k, ∇J_1⟩``, as far as it is known.

    Attributes:
        inner: ``⟨∇J_k, ∇J_1⟩``, unbiased.
        z: ``inner`` in standard errors that hold if the truth is 0, see
            :mod:`~passk_guard.statistics.first_test`.
        threshold: beyond which, on either side, the sign is sure.
        chance: of finding the wrong sign, that the threshold allows.
        prompts: that it rests on.
    """

    inner: float
    z: float
    threshold: float
    chance: float
    prompts: int

    @property
    def lowers(self) -> bool:
        """Whether the step surely lowers pass@1."""
        return self.z < -self.threshold

    @property
    def raises(self) -> bool:
        """Whether it surely raises it."""
        return self.z > self.threshold

    @property
    def sure(self) -> bool:
        """Whether the sign is known."""
        return self.lowers or self.raises


def sign_test(gramian: Any, weights: Any, chance: float) -> SignTest:
    """Test the sign of a re-weighted objective's inner product with pass@1.

    Args:
        gramian: ``(m, m)`` inner products of per-prompt leave-one-out gradients.
        weights: ``(m,)`` prompt weights of the objective.
        chance: of a wrong sign, on either side; see :func:`chance_of_look`.

    Raises:
        ValueError: shapes do not match, fewer than 4 prompts, or no such chance.
    """
    H = symmetric_kernel(gramian, weights)
    inner, z = first_z(H)
    return SignTest(inner, z, first_threshold(chance, len(H)), chance, len(H))


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


def prompts_needed(gramian: Any, weights: Any, test: SignTest) -> int | None:
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
