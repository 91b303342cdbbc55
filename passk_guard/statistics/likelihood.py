"""How far a batch of prompts would have to be re-weighted before its U-statistic were zero."""

from __future__ import annotations

import math

import numpy as np

_ROUNDS = 100
_TOLERANCE = 1e-6


def likelihood_root(H: np.ndarray) -> float:
    """Root of twice the empirical log-likelihood ratio against ``E[H_12] = 0``.

    The weights ``v`` of prompts that are likeliest among those under which the statistic vanishes::

        maximise Σ log(m v_i)      where Σ v_i = 1 and Σ_{i≠j} v_i v_j H_ij = 0

    The condition is made linear at the weights at hand, as by Wood, Do and Broom 1996: with
    ``h = H v`` and ``ψ_i = 2 h_i - Σ v_j h_j``, the likeliest weights under which ψ has mean zero
    are ``v_i = 1 / (m (1 + λ ψ_i))``; ψ is computed anew at these, and so on. The root
    ``√(-2 Σ log(m v_i))`` is ``|U| / se`` to first order, se the jackknife's (Owen 1988; Jing, Yuan
    and Zhou 2009 for U-statistics). Unlike that, it takes the spread of the gradients from where
    the statistic is zero, and their skewness as it is: so it stays small where U is near the least
    value that it can have, and its standard error vanishes.

    Args:
        H: ``(m, m)`` symmetric kernel, zero diagonal.

    Returns:
        Infinity where no weights are found, as where every prompt pulls the same way.

    >>> bool(likelihood_root(np.eye(4) - 1) == math.inf)
    True
    """
    v = np.full(len(H), 1.0 / len(H))
    h = H @ v
    start = abs(float(v @ h))
    if start == 0:
        return 0.0
    psi = 2 * h - v @ h
    for _ in range(_ROUNDS):
        if not psi.min() < 0 < psi.max():
            return math.inf
        v = _reweighted(psi)
        h = H @ v
        if abs(float(v @ h)) < _TOLERANCE * start:
            return math.sqrt(max(-2.0 * float(np.log(len(H) * v).sum()), 0.0))
        psi = (psi + 2 * h - v @ h) / 2  # damped: a full step may swing from side to side
    return math.inf


def _reweighted(psi: np.ndarray) -> np.ndarray:
    """The likeliest weights under which the mean of ψ is zero; ψ has both signs."""
    m = len(psi)
    # No weight exceeds 1, so 1 + λ ψ_i >= 1/m. In between, Σ ψ/(1 + λ ψ) falls as λ grows.
    low, high = (1 / m - 1) / float(psi.max()), (1 / m - 1) / float(psi.min())
    for _ in range(60):
        middle = (low + high) / 2
        if float((psi / (1 + middle * psi)).sum()) > 0:
            low = middle
        else:
            high = middle
    v = 1 / (1 + (low + high) / 2 * psi)
    return np.asarray(v / v.sum())
