"""Gradients of large models reduced to a few thousand numbers that keep inner products.

Each entry of a gradient gets a random sign and is added into one of ``d`` buckets. With signs σ and
buckets h, ``⟨Sx, Sy⟩ = Σ_ij σ_i σ_j x_i y_j [h(i) = h(j)]`` is unbiased. With buckets that collide
with probability 1/d its variance is ``Σ_{i≠j} (x_i² y_j² + x_i y_i x_j y_j) / d``, below
``(‖x‖² ‖y‖² + ⟨x, y⟩²) / d`` whatever the vectors look like (count sketch: Charikar, Chen and
Farach-Colton 2002; inner products: Weinberger et al. 2009, arXiv 0902.2206, appendix).

Buckets here are cheap: blocks of ``d`` neighbours, each under a random circular shift. Entries of
one block never collide, those of two blocks with probability 1/d, so the bound holds, for few
active columns and for embedding rows too. Without the shift it would not: the columns of a matrix
whose width divides ``d`` would share few buckets. Shifts are sums of few random ones: block b's has
the l-th where b has its l-th bit. Two blocks differ in a bit, so the difference of their shifts is
uniform, and halving does all blocks at once: the upper half is shifted and added to the lower.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from passk_guard.runtime.processes import add_up, everywhere, world
from passk_guard.runtime.sharding import local_part

DEFAULT_SIZE = 2**14
# Entries reduced at a time: into a processor's cache, or enough to keep an accelerator busy.
_CHUNK_CPU, _CHUNK = 2**17, 2**22


class SketchedGramian:
    """Keeps ``size`` numbers per prompt: ``rows x size x 4`` bytes, whatever the model's size.

    Linear: micro-batches, slices of a parameter and processes add up. The same seed gives the same
    sketch in every process on the same kind of device. The error of an inner product is at most
    ``sqrt((1 + ρ²) / size)`` of the product of norms, ρ being the cosine: .0078 to .011 by default;
    that of a cosine from sketched norms is about ``(1 - ρ²) / sqrt(size)``, at most .0078.

    Args:
        rows: number of prompts.
        size: numbers per prompt, a power of two from 8 to 2^17.
        seed: seed of signs and shifts; another one for each probe keeps errors from adding up.
    """

    def __init__(self, rows: int, size: int = DEFAULT_SIZE, seed: tuple[int, ...] = (0,)) -> None:
        if size < 8 or size & (size - 1) or size > _CHUNK_CPU:
            raise ValueError(f"size must be a power of two from 8 to {_CHUNK_CPU}, got {size}.")
        self._rows, self._size, self._seed = rows, size, seed
        self._buckets: dict[torch.device, _Buckets] = {}

    def add(self, row: int, name: str, gradient: Tensor, offset: int = 0) -> None:
        """Add one parameter's gradient to that of prompt ``row``.

        It may be a ``DTensor`` shard, or a contiguous slice of the flattened gradient that begins
        at ``offset``.
        """
        flat, start = local_part(gradient)
        self._on(flat.device).add(row, name, flat, offset + start)

    def _on(self, device: torch.device) -> _Buckets:
        if device not in self._buckets:
            self._buckets[device] = _Buckets(self._rows, self._size, self._seed, device)
        return self._buckets[device]

    def clear(self, rows: slice) -> None:
        """Forget what came for these rows."""
        for buckets in self._buckets.values():
            buckets.sketches[rows] = 0

    def merge(self, parameters: Sequence[tuple[str, Parameter]]) -> None:
        """Add up what processes hold; each of them names all parameters."""
        if world()[1] > 1:
            for device in dict.fromkeys(parameter.device for _, parameter in parameters):
                add_up(self._on(device).sketches)

    def sketches(self) -> Tensor:
        """``(rows, size)`` float32, on the CPU. Those of slices and of processes add up."""
        total = torch.zeros(self._rows, self._size, dtype=torch.float32, device="cpu")
        for buckets in self._buckets.values():
            total += buckets.sketches.cpu()
        return total

    def gramian(self, *, sharded: bool = False) -> Tensor:
        """``(rows, rows)`` float64 inner products, unbiased but on the diagonal, on the CPU.

        Args:
            sharded: processes hold sketches of parts of each gradient, which add up.
        """
        sketches = self.sketches().double()
        if sharded:
            sketches = torch.stack(everywhere(lambda: sketches)).sum(0)
        return sketches @ sketches.T


class _Buckets:
    """The sketches of what lies on one device."""

    def __init__(self, rows: int, size: int, seed: tuple[int, ...], device: torch.device) -> None:
        self._size, self._seed = size, seed
        self.sketches = torch.zeros(rows, size, dtype=torch.float32, device=device)
        self._chunk = _CHUNK_CPU if device.type == "cpu" else _CHUNK
        # The same in every chunk; each chunk's sum is shifted as a whole once more.
        halvings = (self._chunk // size).bit_length() - 1
        self._shifts = [self._draw("half", i)[0] % size for i in range(halvings)]
        byte = torch.arange(256, device=device)
        bits = byte[:, None] >> torch.arange(8, device=device) & 1
        self._signs_of_byte = (1 - 2 * bits).float()
        # Not every accelerator's generator gives all 64 bits.
        source = device if device.type == "cuda" else torch.device("cpu")
        self._generator = torch.Generator(source)
        # Made once: fresh memory for every chunk is costly.
        self._words = torch.empty(self._chunk // 64, dtype=torch.int64, device=source)
        self._bytes = torch.empty(self._chunk // 8, dtype=torch.int32, device=device)
        self._signs = torch.empty(self._chunk // 8, 8, dtype=torch.float32, device=device)

    def add(self, row: int, name: str, flat: Tensor, offset: int) -> None:
        """Fold ``flat``, which begins at ``offset`` of the parameter, chunk by chunk."""
        end = offset + len(flat)
        for chunk in range(offset // self._chunk, -(-end // self._chunk)):
            start = chunk * self._chunk
            low, high = max(offset, start), min(end, start + self._chunk)
            seed, shift = self._draw(name, chunk)
            self._fold(flat[low - offset : high - offset], low - start, seed)
            _add_shifted(self.sketches[row], self._signs.view(-1)[: self._size], shift % self._size)

    def _fold(self, piece: Tensor, begin: int, seed: int) -> None:
        """Signed sums of a piece of a chunk, into the first block of the signs' memory."""
        end = begin + len(piece)
        levels = (-(-end // self._size) - 1).bit_length()
        used = self._size << levels  # as far as the piece reaches, a power of two of blocks
        self._words.random_(-(2**63), None, generator=self._generator.manual_seed(seed))
        self._bytes.copy_(self._words.view(torch.uint8))
        signs = torch.index_select(
            self._signs_of_byte, 0, self._bytes[: used // 8], out=self._signs[: used // 8]
        ).view(-1)
        signs[:begin] = 0
        signs[end:] = 0
        signs[begin:end].mul_(piece)
        blocks = signs.view(-1, self._size)
        for level in reversed(range(levels)):
            half = 1 << level
            _add_shifted(blocks[:half], blocks[half : 2 * half], self._shifts[level])

    def _draw(self, name: str, index: int) -> tuple[int, int]:
        """Two random numbers, the same in every process and without waiting for a device."""
        text = f"{self._seed}/{name}/{index}".encode()
        digest = hashlib.blake2b(text, digest_size=12).digest()
        return int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:], "big")


def _add_shifted(to: Tensor, what: Tensor, shift: int) -> None:
    """``to += what.roll(shift, -1)``, without a copy."""
    size = to.shape[-1]
    to[..., shift:] += what[..., : size - shift]
    to[..., :shift] += what[..., size - shift :]
