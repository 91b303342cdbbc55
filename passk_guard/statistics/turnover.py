"""Which prompts were lost and which were won while the mean may have held (arXiv 2606.03087).

The evidence is counts: right rollouts when a prompt was first drawn, and when it was drawn last.
Stored rollouts scored again under later weights give none that would do at the usual 8 to 16 per
prompt. What solves a prompt now need not be among them: a policy that merely writes the same answer
in another way gives every stored right rollout a small ratio, which looks like a loss. All that
speaks of a loss whatever the policy is that wrong rollouts have gained, and of 16 rollouts at
pass@1 .9 one or two are wrong. No p-value that holds for every policy can then be below .04 for
one, or .0035 for two, at nine times their probability: too much to name a prompt among 512.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import lgamma
from typing import Any

import numpy as np

from passk_guard.rollouts.group import RolloutGroup
from passk_guard.runtime.stored import Stored

Counts = Mapping[int, tuple[int, int]]

_GRID = 400  # of the unknown pass@1: the largest p-value is found to 1 %
_MARGIN, _FALSE_DISCOVERY = 0.1, 0.05


@dataclass(frozen=True)
class Turnover:
    """Prompts whose pass@1 surely changed by more than ``margin`` since they were first drawn.

    Of the lost ones no more than the share ``false_discovery`` is expected to be wrong, and
    likewise of the won ones: a bound for each look, not for all looks of a run together.

    Attributes:
        lost: row ids, the surest first.
        won: likewise.
        prompts: tested: drawn at two looks at least.
        waiting: drawn at one look only, of which nothing can be said yet.
        false_discovery: the bound.
        margin: of pass@1; changes up to it are no loss and no win.
    """

    lost: tuple[int, ...] = field(repr=False)
    won: tuple[int, ...] = field(repr=False)
    prompts: int
    waiting: int
    false_discovery: float
    margin: float


def turnover(
    first: Counts,
    last: Counts,
    margin: float = _MARGIN,
    false_discovery: float = _FALSE_DISCOVERY,
) -> Turnover:
    """Compare two counts of each prompt, and name those that surely changed.

    Two exact tests per prompt (:func:`loss_p_values`), of which each kind goes through Benjamini
    and Hochberg's (1995) step-up rule: prompts are sampled independently of each other. Lost and
    won have a rule each, or many that are won would loosen the bound for the lost.

    >>> turnover({5: (16, 16), 7: (8, 16)}, {5: (1, 16), 7: (7, 16)}).lost
    (5,)

    Args:
        first: by row id: right rollouts, and rollouts with a verdict.
        last: the same at a later look; a row that is missing was not drawn again.
        margin: change of pass@1 that does not count, 0 to 1.
        false_discovery: share of the named that may be wrong on average.
    """
    rows = [row for row in first if row in last]
    both = [(*first[row], *last[row]) for row in rows]
    lost = [float(loss_p_values(n, m, margin)[c, d]) for c, n, d, m in both]
    won = [float(loss_p_values(m, n, margin)[d, c]) for c, n, d, m in both]
    return Turnover(
        lost=tuple(rows[i] for i in discoveries(lost, false_discovery)),
        won=tuple(rows[i] for i in discoveries(won, false_discovery)),
        prompts=len(rows),
        waiting=len(first) - len(rows),
        false_discovery=false_discovery,
        margin=margin,
    )


@lru_cache(maxsize=64)
def loss_p_values(n: int, later: int, margin: float) -> np.ndarray:
    """Exact p-values of "pass@1 has not fallen by more than ``margin``", for all pairs of counts.

    Barnard's (1947) unconditional test, with a margin as Chan (1998) has it: pairs of counts are
    ordered by their studentised difference, and the p-value is the largest chance, over the unknown
    pass@1, of a pair that speaks as loudly. It needs no approximation and holds for every pass@1.

    Args:
        n: rollouts at first.
        later: rollouts later.
        margin: 0 to 1.

    Returns:
        ``(n + 1, later + 1)`` by right rollouts at first and later.
    """
    order = loss_order(n, later, margin).ravel()
    ranks = np.argsort(-order, kind="stable")
    upto = np.searchsorted(-order[ranks], -order, side="right") - 1  # ties count together
    largest = np.zeros(order.shape)
    for p in np.linspace(margin, 1.0, _GRID + 1):
        chance = np.outer(_binomial(n, p), _binomial(later, p - margin)).ravel()
        np.maximum(largest, chance[ranks].cumsum()[upto], out=largest)
    values: np.ndarray = np.minimum(largest, 1.0).reshape(n + 1, later + 1)
    values.flags.writeable = False  # it is shared
    return values


def loss_order(n: int, later: int, margin: float) -> np.ndarray:
    """How loudly each pair of counts speaks of a loss beyond ``margin``; above 0 where it is seen.

    Args:
        n: rollouts at first.
        later: rollouts later.
        margin: 0 to 1.

    Returns:
        ``(n + 1, later + 1)``, never falling with the right rollouts at first, nor rising with
        those later.
    """
    c, d = np.arange(n + 1)[:, None], np.arange(later + 1)[None, :]
    before, after = (c + 0.5) / (n + 1), (d + 0.5) / (later + 1)
    spread = before * (1 - before) / n + after * (1 - after) / later
    order = (c / n - d / later - margin) / np.sqrt(spread)
    # More right at first, or fewer later, never speaks less of a loss: so the largest chance lies
    # where the loss is just the margin.
    order = np.maximum.accumulate(order, axis=0)
    order = np.maximum.accumulate(order[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(order.round(9))


def _binomial(n: int, p: float) -> Any:
    """Chances of 0 to n right."""
    if p <= 0 or p >= 1:
        return np.eye(n + 1)[n if p >= 1 else 0]
    k = np.arange(n + 1)
    logs: np.ndarray = np.array([lgamma(i + 1) for i in k])
    return np.exp(logs[n] - logs - logs[::-1] + k * np.log(p) + (n - k) * np.log1p(-p))


def discoveries(p_values: Sequence[float], level: float) -> list[int]:
    """Benjamini and Hochberg's (1995) step-up rule: positions, the surest first.

    Args:
        p_values: independent of each other.
        level: share of the named that may be wrong on average.
    """
    surest = sorted(range(len(p_values)), key=p_values.__getitem__)
    last = 0
    for rank, i in enumerate(surest, start=1):
        if p_values[i] <= level * rank / len(p_values):
            last = rank
    return surest[:last]


class PromptCounts(Stored):
    """Right rollouts of every prompt, when it was first drawn and when it was drawn last."""

    _stored = ("_first", "_last")

    def __init__(self) -> None:
        self._first: dict[int, tuple[int, int]] = {}
        self._last: dict[int, tuple[int, int]] = {}

    def add(self, groups: Iterable[RolloutGroup]) -> Turnover | None:
        """Take in all of a look's fresh groups; ``None`` while no prompt was drawn again."""
        look: dict[int, tuple[int, int]] = {}
        for group in groups:  # a small pool is drawn through more than once in a look
            c, n = look.get(group.row, (0, 0))
            look[group.row] = c + group.correct, n + group.n
        self._last |= {row: counts for row, counts in look.items() if row in self._first}
        self._first = look | self._first
        return turnover(self._first, self._last) if self._last else None
