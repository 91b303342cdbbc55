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
        return (centred * centred_variance).sum(1) / (centred**2).sum(1)

    @cached_property
    def parts(self) -> np.ndarray:
        """``(batches, 3)``: shared, square and theta2 of :class:`VarianceParts`."""
        m = self.m
        S, A, B = self.row.sum(1), (self.row**2).sum(1), self.squares.sum(1)
        pairs = m * (m - 1)
        theta2 = (S**2 - 4 * A + 2 * B) / (pairs * (m - 2) * (m - 3))
        return np.stack([(A - B) / (pairs * (m - 2)), B / pairs, theta2], 1)


def kernels(gradients: np.ndarray, weights: np.ndarray) -> Kernels:
    """From ``(batches, m, r)`` gradients and ``(batches, m)`` weights."""
    m, rank = gradients.shape[1:]
    if 2 * rank > m:
        return _formed(gradients, weights)
    w = weights[..., None]
    flipped = gradients.transpose(0, 2, 1)
    own = (gradients**2).sum(2)

    def against(vectors: np.ndarray) -> np.ndarray:
        """``Σ_j H_ij v_j`` with the diagonal taken out; vectors ``(batches, m)``."""
        plain = flipped @ vectors[..., None]
        weighted = flipped @ (w * vectors[..., None])
        mixed = 0.5 * (w * (gradients @ plain) + gradients @ weighted)[..., 0]
        return mixed - weights * own * vectors

    quadratic = [
        ((gradients @ (flipped @ (w**power * gradients))) * gradients).sum(2) for power in range(3)
    ]
    squares = 0.25 * (weights**2 * quadratic[0] + 2 * weights * quadratic[1] + quadratic[2])
    row = against(np.ones_like(weights))
    return Kernels(row, squares - (weights * own) ** 2, against(row))


def _formed(gradients: np.ndarray, weights: np.ndarray) -> Kernels:
    H = 0.5 * (weights[:, :, None] + weights[:, None, :])
    H *= gradients @ gradients.transpose(0, 2, 1)
    m = H.shape[1]
    H[:, np.arange(m), np.arange(m)] = 0.0
    row = H.sum(2)
    return Kernels(row, np.einsum("bij,bij->bi", H, H), (H @ row[..., None])[..., 0])


def simulated(
    generator: Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]],
    rng: np.random.Generator,
    batches: int,
    m: int,
    at_once: int = 1 << 19,
) -> Iterator[Kernels]:
    """Kernels of ``batches`` independent batches of m prompts, in pieces that fit a cache."""
    rank = generator(rng, 1)[0].shape[1]
    piece = max(1, at_once // (m * max(rank, m if 2 * rank > m else 0)))
    while batches > 0:
        now = min(piece, batches)
        gradients, weights = generator(rng, now * m)
        yield kernels(gradients.reshape(now, m, rank), weights.reshape(now, m))
        batches -= now
