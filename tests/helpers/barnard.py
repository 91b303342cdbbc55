"""Exact tests of two counts, not conditional on being a candidate."""

from functools import lru_cache
from math import lgamma
from typing import Any

import numpy as np

from passk_guard.statistics.lost_prompts import loss_order

_GRID = 400  # of the unknown pass@1: the largest p-value is found to 1 %


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


def _binomial(n: int, p: float) -> Any:
    """Chances of 0 to n right."""
    if p <= 0 or p >= 1:
        return np.eye(n + 1)[n if p >= 1 else 0]
    k = np.arange(n + 1)
    logs: np.ndarray = np.array([lgamma(i + 1) for i in k])
    return np.exp(logs[n] - logs - logs[::-1] + k * np.log(p) + (n - k) * np.log1p(-p))
