"""The algebra of pass@k: estimators, prompt weights, thresholds.

With ``p`` the probability that one rollout solves a prompt, pass@k is ``1 - (1 - p)^k`` and its
gradient is the pass@1 gradient times the *prompt weight* ``w_k(p) = k (1 - p)^(k-1)``: large on
hard prompts, vanishing on easy ones (Barakat et al. 2026, arXiv 2602.21189).

Counts may be Python numbers, sequences, NumPy arrays or torch tensors, of any dtype, as long as
they are whole. The answer comes back as the same kind: ``float``, float64 array (for sequences
too), or float64 tensor on the same device.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def pass_at_k(correct: Any, n: Any, k: int) -> Any:
    """Unbiased estimate of pass@k from ``correct`` right rollouts out of ``n``, per prompt.

    ``1 - C(n-c, k) / C(n, k)`` (Chen et al. 2021, arXiv 2107.03374), stable for large ``n``.

    Args:
        correct: number of right rollouts ``c`` per prompt, ``(m,)`` or a number.
        n: rollouts per prompt, an int or ``(m,)``.
        k: tries, ``1 <= k <= n``.

    Raises:
        ValueError: a count is not whole, ``c`` is outside ``0..n``, or ``k`` outside ``1..n``.

    >>> pass_at_k(1, 4, 2)
    0.5
    >>> pass_at_k([0, 1, 4], 4, 2).tolist()
    [0.0, 0.5, 1.0]
    """
    c, total, restore = _counts(correct, n)
    k = _whole_k(k)
    _check_k(k, total, most=0, rule="pass@k needs k <= n")
    return restore(1.0 - binomial_ratio(total - c, total, k))


def prompt_weight(p: Any, k: int) -> Any:
    """Weight ``w_k(p) = k (1-p)^(k-1)`` of a prompt in the pass@k gradient.

    Args:
        p: success probability, in ``[0, 1]``, of any shape.
        k: tries, at least 1.

    >>> prompt_weight(0.5, 2)
    1.0
    """
    values, restore = _as_float64(p, "p")
    k = _whole_k(k)
    if not bool(np.all((values >= 0) & (values <= 1))):
        raise ValueError(f"p must lie in [0, 1], got {p!r}. Pass probabilities, not counts.")
    return restore(k * (1.0 - values) ** (k - 1))


def unbiased_prompt_weight(correct: Any, n: Any, k: int) -> Any:
    r"""Weight ``ŵ_k(c)`` for the leave-one-out policy gradient of the same ``n`` rollouts.

    ``ŵ_k(c) = k C(n-c-1, k-1) / C(n-2, k-1)``, 0 where ``n-c-1 < k-1``. With the per-prompt
    gradient ``ĝ = 1/(n-1) Σ_j (r_j - r̄) ∇log π(y_j)`` it gives ``E[ŵ_k(c) ĝ] = w_k(p) ∇p``
    exactly, for every ``k <= n-1``, although weight and gradient share their rollouts: given
    ``c``, ĝ has mean ``c(n-c)/(n(n-1)) · ∇p/(p(1-p))``, and ``C(n,c) c(n-c)/(n(n-1)) =
    C(n-2,c-1)``, so that ``c-1`` is distributed as ``Binomial(n-2, p)`` under the weight. The
    plug-in weight ``k (1-c/n)^(k-1)`` is biased.

    It is a weight for ĝ, not an estimate of ``w_k(p)`` by itself: that is
    ``k C(n-c, k-1) / C(n, k-1)``.

    Args:
        correct: number of right rollouts ``c`` per prompt, ``(m,)`` or a number.
        n: rollouts per prompt, an int or ``(m,)``.
        k: tries, ``1 <= k <= n-1``.

    Raises:
        ValueError: a count is not whole, ``c`` is outside ``0..n``, or ``k`` outside ``1..n-1``.

    >>> unbiased_prompt_weight([1, 2, 3], 4, 2).tolist()
    [2.0, 1.0, 0.0]
    """
    c, total, restore = _counts(correct, n)
    k = _whole_k(k)
    _check_k(k, total, most=1, rule="the unbiased weight needs k <= n - 1")
    return restore(k * binomial_ratio(total - c - 1, total - 2, k - 1))


def weight_threshold(k: int) -> float:
    """Success probability below which a prompt gains weight: ``w_k(p) > 1`` iff ``p <`` this.

    ``1 - k^(-1/(k-1))``; for ``k = 1`` every weight is 1 and the limit ``1 - 1/e`` is returned.

    >>> [round(weight_threshold(k), 3) for k in (2, 5, 8, 16, 32)]
    [0.5, 0.331, 0.257, 0.169, 0.106]
    """
    k = _whole_k(k)
    exponent = -1.0 if k == 1 else -np.log(k) / (k - 1)
    return float(-np.expm1(exponent))


def binomial_ratio(a: np.ndarray, b: np.ndarray, k: int) -> np.ndarray:
    """``C(a, k) / C(b, k)`` for whole ``a <= b + 1``, ``b >= k``; 0 where ``a < k``.

    As a product of ``k`` ratios, in which nothing overflows: no factorial.
    """
    a, b = np.broadcast_arrays(np.asarray(a, float), np.asarray(b, float))
    ratio = np.ones(a.shape)
    for j in range(k):
        ratio = ratio * (np.maximum(a - j, 0.0) / np.maximum(b - j, 1.0))
    return ratio


def _whole_k(k: Any) -> int:
    if isinstance(k, bool) or int(k) != k or k < 1:
        raise ValueError(f"k must be a whole number of tries, at least 1, got {k!r}.")
    return int(k)


def _check_k(k: int, n: np.ndarray, *, most: int, rule: str) -> None:
    smallest = int(n.min()) if n.size else k + most
    if k > smallest - most:
        raise ValueError(
            f"k={k} is too large for n={smallest} rollouts: {rule}. "
            f"Lower k to {max(smallest - most, 1)} or draw at least {k + most} rollouts per prompt."
        )


def _counts(correct: Any, n: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    c, restore = _as_float64(correct, "correct")
    total, _ = _as_float64(n, "n")
    for name, values in (("correct", c), ("n", total)):
        if not bool(np.all(values == np.floor(values))):
            raise ValueError(f"{name} must hold whole counts, got {values!r}.")
    c, total = np.broadcast_arrays(c, total)
    if not bool(np.all((c >= 0) & (c <= total))):
        raise ValueError(
            f"correct must lie between 0 and n, got correct={correct!r} with n={n!r}. "
            "Pass the number of right rollouts, not a rate."
        )
    return c, total, restore


def _as_float64(values: Any, name: str) -> tuple[np.ndarray, Any]:
    """The values as a float64 array, and the function that gives an answer back in kind."""
    if isinstance(values, torch.Tensor):
        device = values.device
        # MPS has no float64.
        dtype = torch.float32 if device.type == "mps" else torch.float64

        def to_tensor(out: np.ndarray) -> torch.Tensor:
            return torch.as_tensor(out, dtype=dtype, device=device)

        return values.detach().to("cpu", torch.float64).numpy(), to_tensor
    array = np.asarray(values, dtype=float)
    if np.ndim(values) == 0 and not isinstance(values, np.ndarray):
        return array, lambda out: float(out) if np.ndim(out) == 0 else out
    return array, np.asarray
