"""A 95 % interval of a mean over prompts of values that have bounds, such as pass@k.

Prompts are drawn from a population of prompts, and the mean is that of the population. Values of
pass@k are far from normal: most are 0 or 1, or the change is 0 on most prompts. The plain interval,
mean ± 1.96 standard errors, is empty where all values agree, and misses the truth far too often
where few differ or one side has a long tail.

The upper end here is that of Gaffke (2005; see also Phan, Thomas and Learned-Miller 2021, arXiv
2106.03163), whose coverage is conjectured for all distributions and proven for some; here it is
simulated (``tests/benchmarks/compare_coverage.py``). One more value is put in, the greatest that
there can be, and the ``m + 1`` values get random weights, uniform among those that add up to 1. The
end is what the weighted mean stays below with a chance of 97.5 %; for the lower end it is the least
value that is put in. On zeros and ones this is Clopper and Pearson's (1934) exact interval, and
where many values differ it comes close to the normal one, with the skewness of the values in it.

The weighted mean is below ``t`` where ``Σ E_i (x_i - t) < 0`` with standard exponential ``E_i``,
so the chance is that of a sum with a known cumulant function. It is taken from the modified signed
root ``r* = r + log(u / r) / r`` of its saddlepoint (Barndorff-Nielsen 1986), where ``r`` is the
root of twice the empirical log-likelihood ratio (Owen 1988). Ends are at most .6 % beyond Clopper
and Pearson's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from passk_guard.statistics.interval import Z95

_FEW, _ENOUGH = 8, 20  # values that make the spread: fewer are not trusted to show the tails
_EVEN = 3  # times as many that differ at all: beyond, they do so by orders of magnitude
_SHARE, _LONG_TAIL = 0.4, 2.0  # weight of what is put in elsewhere, and skewness at which it is 1
_ROUNDING = 1e-12  # values that are closer are equal
_ROUNDS, _TOLERANCE = 60, 1e-9


def mean_interval(values: np.ndarray, low: float = 0.0, high: float = 1.0) -> tuple[float, float]:
    """95 % interval of the mean of the population that the values are a sample of.

    Args:
        values: ``(m,)``, one per prompt, such as unbiased pass@k.
        low: least value that there can be.
        high: greatest value that there can be.

    Raises:
        ValueError: there is no value, or one is not between ``low`` and ``high``.

    >>> low, high = mean_interval(np.zeros(20))  # nothing solved: Clopper and Pearson say .168
    >>> low, round(high, 3)
    (0.0, 0.169)
    """
    lower, upper = mean_intervals(np.asarray(values, float).reshape(1, -1), low, high)
    return float(lower[0]), float(upper[0])


def mean_intervals(
    values: np.ndarray, low: float = 0.0, high: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`mean_interval` of each row.

    What is put in is the bound itself where too few values tell (:func:`few_tell`): a rare kind
    that is far away may be unseen. Elsewhere the bound would make intervals of many small changes
    several times too long. There it lies as far from the mean as the most distant value does;
    further, but not beyond the bound, where the values differ by orders of magnitude, as those of
    pass@32 do. And it is .4 of a value, much as in the mid-p interval, but a whole one on the side
    of a long tail. These figures are from ``tests/benchmarks/compare_coverage.py``.

    Args:
        values: ``(rows, m)``.
        low: least value that there can be.
        high: greatest value that there can be.

    Returns:
        ``(rows,)`` lower and upper ends.

    Raises:
        ValueError: there is no value, or one is not between ``low`` and ``high``.
    """
    values = np.asarray(values, float)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"values must be (rows, m) with m at least 1, got shape {values.shape}.")
    if not bool(np.all((values >= low) & (values <= high))):
        raise ValueError(f"values must lie between {low:g} and {high:g}.")
    centre = values.mean(1)
    x = values - centre[:, None]
    makers, differing = makers_of_spread(values)
    few = few_tell(values)
    further = (_stretch(makers, differing) - 1) * np.minimum(_ENOUGH / np.maximum(makers, 1), 1)
    reach = np.where(few, np.inf, np.abs(x).max(1) * (1 + further))
    deviation = x.std(1, keepdims=True)
    skewness = ((x / np.where(deviation > 0, deviation, 1)) ** 3).mean(1)
    ends = []
    for sign, bound in ((-1, -low), (1, high)):
        tail = np.clip(sign * skewness / _LONG_TAIL, 0, 1)
        share = np.where(few, 1, _SHARE + (1 - _SHARE) * tail)
        added = np.minimum(sign * centre + reach, bound)
        ends.append(np.clip(sign * _upper(sign * values, added, share), low, high) + 0.0)
    return ends[0], ends[1]


def few_tell(values: np.ndarray) -> np.ndarray:
    """``(rows,)`` whether so few of the values make the spread that they may not show the tails.

    Fewer than 8 do. Where those that differ at all are more than three times as many, and so do it
    by orders of magnitude: fewer than 8 times a third of that ratio, but 20 are enough.

    Args:
        values: ``(rows, m)``.
    """
    makers, differing = makers_of_spread(values)
    few: np.ndarray = makers < np.minimum(_FEW * _stretch(makers, differing), _ENOUGH)
    return few


def _stretch(makers: np.ndarray, differing: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(differing / (_EVEN * np.maximum(makers, 1)), 1))


def makers_of_spread(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many values the spread is made by, and how many have any part in it.

    ``(Σ|x|)² / Σx²``, x from the median: as many as differ from it where they differ equally far,
    fewer where few of these dominate.

    Args:
        values: ``(rows, m)``.

    Returns:
        ``(rows,)`` each.
    """
    away = np.abs(values - np.median(values, axis=1)[:, None])
    away[away < _ROUNDING] = 0
    squares = (away**2).sum(1)
    makers: np.ndarray = away.sum(1) ** 2 / np.where(squares > 0, squares, 1.0)
    differing: np.ndarray = (away > 0).sum(1)
    return makers, differing


def _upper(values: np.ndarray, added: np.ndarray, share: np.ndarray) -> np.ndarray:
    """``(rows,)`` 97.5 % quantiles of the randomly weighted mean; ``added`` is the greatest value.

    The saddlepoint is found along λ: at weights proportional to ``1 / (1 - λ x_i)`` the mean is the
    ``t`` whose saddlepoint is ``λ / (1 - λ t)``. With ``λ = (1 - exp(-v)) / max x``, v runs from 0
    to infinity, t from the mean to the maximum.
    """
    m = values.shape[1]
    centre = (values.sum(1) + share * added) / (m + share)
    most = added - centre
    found = np.zeros(len(values))
    open_ = np.flatnonzero(most > _ROUNDING)  # elsewhere all are at the bound
    x, most, share = values[open_] - centre[open_, None], most[open_], share[open_]

    def roots(v: np.ndarray, rows: Any) -> tuple[np.ndarray, np.ndarray]:
        rate, extra, y, top = -np.expm1(-v) / most[rows], share[rows], x[rows], most[rows]
        weight, heavy = 1 / (1 - rate[:, None] * y), np.exp(v)
        t = ((y * weight).sum(1) + extra * top * heavy) / (weight.sum(1) + extra * heavy)
        squared = -2 * (np.log(weight).sum(1) + extra * v + (m + extra) * np.log1p(-rate * t))
        r = np.sqrt(np.maximum(squared, 1e-12))
        spread = (((y - t[:, None]) * weight) ** 2).sum(1) + extra * ((top - t) * heavy) ** 2
        u = rate * np.sqrt(spread)
        return r + np.log(u / r) / r - Z95, t

    # Regula falsi, with the stubborn end's value halved (Illinois), from a bracket that is doubled.
    below, above = np.zeros(len(x)), np.full(len(x), 1.0)
    at_below, (at_above, t) = np.full(len(x), -Z95), roots(above, slice(None))
    while (short := np.flatnonzero(at_above < 0)).size:
        below[short], at_below[short] = above[short], at_above[short]
        above[short] *= 2
        at_above[short], t[short] = roots(above[short], short)
    left, side = np.arange(len(x)), np.zeros(len(x))
    for _ in range(_ROUNDS):
        if not left.size:
            break
        a, b, fa, fb = below[left], above[left], at_below[left], at_above[left]
        v = b - fb * (b - a) / (fb - fa)
        f, t[left] = roots(v, left)
        up = f < 0
        at_above[left] = np.where(up, np.where(side[left] > 0, fb / 2, fb), f)
        at_below[left] = np.where(up, f, np.where(side[left] < 0, fa / 2, fa))
        below[left], above[left] = np.where(up, v, a), np.where(up, b, v)
        side[left] = np.where(up, 1, -1)
        left = left[np.abs(f) > _TOLERANCE]
    found[open_] = t
    ends: np.ndarray = centre + found
    return ends
