"""What the statistics make of ``H_ij = (w_i + w_j) ⟨g_i, g_j⟩ / 2``, without forming it.

For gradients of a few dimensions, and for many batches at once: a simulation of rare events needs
hundreds of thousands. ``tests/statistics/test_nulls.py`` compares with the shipped functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from passk_guard.statistics.variance import u_variance


@dataclass(frozen=True)
class Kernels:
    """Sums over many kernels, all ``(batches, ...)``.

    Attributes:
        row: ``(batches, m)`` row sums.
        squares: ``(batches, m)`` row sums of squares.
        twice: ``(batches, m)`` the kernel times its row sums.
    """

    row: np.ndarray
    squares: np.ndarray
    twice: np.ndarray

    @property
    def m(self) -> int:
        return self.row.shape[1]

    @cached_property
    def inner(self) -> np.ndarray:
        return self.row.sum(1) / (self.m * (self.m - 1))

    @cached_property
    def variance(self) -> np.ndarray:
        """Unbiased."""
        return u_variance(self.m, self.row.sum(1), (self.row**2).sum(1), self.squares.sum(1))

    @cached_property
    def jackknife(self) -> np.ndarray:
        m = self.m
        centred = self.row - self.row.mean(1, keepdims=True)
        return 4 * (centred**2).sum(1) / (m * (m - 1) * (m - 2) ** 2)

    @cached_property
    def kept(self) -> np.ndarray:
        """The variance that is reported: not below half the jackknife's."""
        return np.maximum(self.variance, self.jackknife / 2)

    @cached_property
    def slope(self) -> np.ndarray:
        n = self.m - 1
        total, squares = self.row.sum(1, keepdims=True), self.squares.sum(1, keepdims=True)
        S = total - 2 * self.row
        A = (self.row**2).sum(1, keepdims=True) - self.row**2 - 2 * self.twice + self.squares
        B = squares - 2 * self.squares
        without, variance = S / (n * (n - 1)), u_variance(n, S, A, B)
        centred = without - without.mean(1, keepdims=True)
        centred_variance = variance - variance.mean(1, keepdims=True)
        spread = (centred**2).sum(1)
        return (centred * centred_variance).sum(1) / np.where(spread > 0, spread, 1.0)


Against = Callable[[np.ndarray], np.ndarray]


def against(gradients: np.ndarray, weights: np.ndarray) -> Against:
    """``v -> Σ_j H_ij v_j`` over ``(batches, m, r)`` gradients, ``(batches, m)`` weights and v."""
    if 2 * gradients.shape[2] > gradients.shape[1]:
        H = formed(gradients, weights)
        return lambda v: (H @ v[..., None])[..., 0]
    w, flipped = weights[..., None], gradients.transpose(0, 2, 1)
    own = weights * (gradients**2).sum(2)  # the diagonal, taken out

    def apply(v: np.ndarray) -> np.ndarray:
        plain, weighted = flipped @ v[..., None], flipped @ (w * v[..., None])
        return 0.5 * (w * (gradients @ plain) + gradients @ weighted)[..., 0] - own * v

    return apply


def formed(gradients: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The kernels themselves, ``(batches, m, m)``."""
    H = 0.5 * (weights[:, :, None] + weights[:, None, :])
    H *= gradients @ gradients.transpose(0, 2, 1)
    every = np.arange(H.shape[1])
    H[:, every, every] = 0.0
    return H


def kernels(gradients: np.ndarray, weights: np.ndarray) -> Kernels:
    """From ``(batches, m, r)`` gradients and ``(batches, m)`` weights."""
    if 2 * gradients.shape[2] > gradients.shape[1]:
        H = formed(gradients, weights)
        row = H.sum(2)
        return Kernels(row, np.einsum("bij,bij->bi", H, H), (H @ row[..., None])[..., 0])
    w, flipped = weights[..., None], gradients.transpose(0, 2, 1)
    quadratic = [
        ((gradients @ (flipped @ (w**power * gradients))) * gradients).sum(2) for power in range(3)
    ]
    squares = 0.25 * (weights**2 * quadratic[0] + 2 * weights * quadratic[1] + quadratic[2])
    apply = against(gradients, weights)
    row = apply(np.ones_like(weights))
    return Kernels(row, squares - (weights * (gradients**2).sum(2)) ** 2, apply(row))


def likelihood_roots(apply: Against, batches: int, m: int, rounds: int = 40) -> np.ndarray:
    """``(batches,)`` what ``likelihood_root`` gives for each."""
    v = np.full((batches, m), 1.0 / m)
    h = apply(v)
    found, start = np.ones(batches, bool), np.abs(h.mean(1))
    psi = 2 * h - h.mean(1, keepdims=True)
    for _ in range(rounds):
        least, most = psi.min(1), psi.max(1)
        found &= (least < 0) & (most > 0)
        low = np.where(found, (1 / m - 1) / np.where(found, most, 1), 0)
        high = np.where(found, (1 / m - 1) / np.where(found, least, 1), 0)
        for _ in range(26):
            middle = (low + high) / 2
            up = (psi / (1 + middle[:, None] * psi)).sum(1) > 0
            low, high = np.where(up, middle, low), np.where(up, high, middle)
        v = 1 / (1 + ((low + high) / 2)[:, None] * psi)
        v /= v.sum(1, keepdims=True)
        h = apply(v)
        now = (v * h).sum(1)
        done = np.abs(now) < 1e-4 * start
        if done[found].all():
            break
        psi = (psi + 2 * h - now[:, None]) / 2
    found &= done
    root = np.sqrt(np.maximum(-2 * np.log(m * v).sum(1), 0))
    return np.where(found, root, np.inf)


def first_z(gradients: np.ndarray, weights: np.ndarray, beyond: float = 2.0) -> np.ndarray:
    """``(batches,)`` the z of ``first_test``, exact where it is below ``-beyond``."""
    got = kernels(gradients, weights)
    at_zero = np.maximum(got.kept, got.kept - got.slope * got.inner)
    z = got.inner / np.sqrt(np.where(at_zero > 0, at_zero, 1.0))  # 0 / 1 without signal
    far = np.flatnonzero(z < -beyond)
    if len(far):
        apply = against(gradients[far], weights[far])
        roots = likelihood_roots(apply, len(far), got.m)
        ratio = np.maximum(np.sqrt(got.jackknife[far] / at_zero[far]), 1)
        z[far] = np.maximum(z[far], -roots * ratio)
    return z


def simulated(
    generator: Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]],
    rng: np.random.Generator,
    batches: int,
    m: int,
    at_once: int = 1 << 19,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of m independent prompts, in pieces that fit a cache.

    Yields:
        ``(piece, m, r)`` gradients and ``(piece, m)`` weights, ``batches`` in all.
    """
    rank = generator(rng, 1)[0].shape[1]
    piece = max(1, at_once // (m * max(rank, m if 2 * rank > m else 0)))
    while batches > 0:
        now = min(piece, batches)
        gradients, weights = generator(rng, now * m)
        yield gradients.reshape(now, m, rank), weights.reshape(now, m)
        batches -= now
