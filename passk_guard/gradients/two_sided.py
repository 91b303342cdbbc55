"""Gradients of matrices reduced from both sides while they are still factors.

With random signs P and Q, ``P g Qᵀ`` of a gradient ``g = Σ_t b_t a_tᵀ`` is ``Σ_t (P b_t)(Q a_t)ᵀ``:
two thin products per token, and the gradient itself is never formed. With p rows of entries ±1/√p
on either side, ``⟨P g Qᵀ, P h Qᵀ⟩`` has the mean ``⟨g, h⟩`` and a variance of at most
``(2/p + 2/p²) (‖g‖² ‖h‖² + ⟨g, h⟩²)``, whatever the matrices look like; rank one is the worst case.
(Random signs: Achlioptas 2003; on the factors of a layer's gradient: LoGra, Choe et al. 2024, arXiv
2405.13954.) The errors of many layers average out.

The two halves of P and of Q make four smaller sketches, whose mean the whole is. Their spread tells
its error on the very batch: with ``K_ab = κ + r_a + c_b + e_ab`` the variance of the mean is, on
average, ``((K_11 - K_22)² + (K_12 - K_21)²) / 8 - (K_11 + K_22 - K_12 - K_21)² / 16``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import one_hot

from passk_guard.gradients.sketch import SketchedGramian
from passk_guard.runtime.processes import add_up, everywhere, world
from passk_guard.runtime.sharding import local_part

_SHORT_VECTOR = 2**10  # signs would cost more than they save
_WORDS = 2**16  # drawn signs, 63 in each, that are taken apart at once
_LONG_VECTOR = 2**15  # biases over a vocabulary: their signs would take more room than they do


class TwoSidedGramian:
    """A :class:`~passk_guard.gradients.layers.Sink` of ``p²`` numbers per matrix and prompt.

    Long vectors are reduced to ``p²`` numbers, too. What is not wider than that stays as it is.
    Tied weights are one parameter with one pair of signs, so what its uses give adds up.

    Args:
        rows: prompts.
        shapes: of the parameters, whole, by name.
        size: p, even.
        seed: of the signs; another one for each probe keeps errors from adding up.
    """

    def __init__(
        self, rows: int, shapes: Mapping[str, torch.Size], size: int, seed: tuple[int, ...] = (0,)
    ) -> None:
        self._rows, self._shapes, self._size, self._seed = rows, shapes, size, seed
        self._signs: dict[tuple[Any, ...], Tensor] = {}
        self._signs_for: dict[tuple[Any, ...], Tensor | None] = {}  # by parameter
        self._sketches: dict[str, Tensor] = {}  # (rows, left, right)
        self._rest = SketchedGramian(rows, seed=seed)  # what has other shapes
        self._has_rest = False
        self._last: tuple[Tensor, Tensor, Tensor] | None = None  # values, signs, factor

    def factor(self, name: str, side: int, values: Tensor) -> Tensor:
        """``(b, t, p)`` float32, or ``(b, t, width)`` of a narrow side."""
        whole = values.is_floating_point()
        signs = self._signs_of(name, side, values.dtype if whole else torch.float32, values.device)
        if signs is None:
            return values.float() if whole else one_hot(values, self._shapes[name][side]).float()
        if not whole:
            return signs[values]
        # Queries, keys and values are computed from one input.
        if self._last is not None and self._last[1] is signs and _same(self._last[0], values):
            return self._last[2]
        found = (values @ signs).float()
        self._last = values, signs, found
        return found

    def outer(self, name: str, left: Tensor, right: Tensor, owners: Tensor) -> None:
        """Add ``Σ_t left_t right_tᵀ`` of each row to its owner's sketch."""
        found = torch.bmm(left.transpose(1, 2), right)
        self._made(name, found.device).index_add_(0, owners, found)

    def vector(self, name: str, values: Tensor, owners: Tensor) -> None:
        """Add ``(b, width)`` to the sketch of a parameter with one dimension."""
        if values.shape[-1] > _LONG_VECTOR:
            self._has_rest = True
            for row, owner in zip(values, owners.tolist(), strict=True):
                self._rest.add(owner, name, row)
            return
        values = values.float()
        signs = self._signs_of(name, 0, values.dtype, values.device)
        if signs is not None:
            values = values @ signs
        self._made(name, values.device).index_add_(0, owners, values[:, :, None])

    def add(self, row: int, name: str, gradient: Tensor, offset: int = 0) -> None:
        """Add one parameter's gradient, or this process's shard of it, as it is; no slices."""
        shape = self._shapes[name]
        flat, start = local_part(gradient)
        owner = torch.tensor([row], device=flat.device)
        if len(shape) == 1:
            whole = torch.zeros(shape[0], dtype=torch.float32, device=flat.device)
            whole[start : start + len(flat)] = flat
            self.vector(name, whole[None], owner)
        elif len(shape) == 2:
            part = flat.float().view(-1, shape[1])
            first = start // shape[1]
            left = torch.arange(first, first + len(part), device=flat.device)
            factors = self.factor(name, 0, left[None]), self.factor(name, 1, part[None])
            self.outer(name, *factors, owner)
        else:
            self._has_rest = True
            self._rest.add(row, name, flat, start)

    def clear(self, rows: slice) -> None:
        """Forget what came for these rows."""
        for sketch in self._sketches.values():
            sketch[rows] = 0
        self._rest.clear(rows)

    def merge(self, parameters: Sequence[tuple[str, Parameter]]) -> None:
        """Add up what processes hold; each of them names all parameters."""
        if world()[1] == 1:
            return
        for name, parameter in parameters:
            if self._reduces(name):
                add_up(self._made(name, parameter.device))
        if any(everywhere(lambda: self._has_rest)):
            self._has_rest = True
            self._rest.merge(parameters)

    def gramian(self) -> Tensor:
        """``(rows, rows)`` float64 inner products, unbiased, on the CPU."""
        total = self._of_rest()
        for name, sketch in self._sketches.items():
            flat = sketch.flatten(1)
            total += (flat @ flat.T).to("cpu", torch.float64) * self._scale(name)
        return total

    def error(self) -> float:
        """Standard error of a cosine between two prompts, rms over pairs."""
        parts = torch.stack([self._of_rest()] * 4).view(2, 2, self._rows, self._rows)
        for name, sketch in self._sketches.items():
            halves = [
                half
                for left in self._halved(name, 0, sketch)
                for half in self._halved(name, 1, left)
            ]
            flat = torch.stack(halves).flatten(2)
            splits = sketch[0].numel() / halves[0][0].numel()
            found = (flat @ flat.transpose(1, 2)).to("cpu", torch.float64)
            parts += found.view_as(parts) * (self._scale(name) * splits)
        norms = parts.mean((0, 1)).diagonal().clamp(min=1e-300).sqrt()
        off = ~torch.eye(self._rows, dtype=torch.bool, device="cpu")
        cosines = (parts / torch.outer(norms, norms))[:, :, off]
        straight, across = cosines[0, 0] - cosines[1, 1], cosines[0, 1] - cosines[1, 0]
        both = cosines[0, 0] + cosines[1, 1] - cosines[0, 1] - cosines[1, 0]
        variances = (straight.square() + across.square()) / 8 - both.square() / 16
        return math.sqrt(max(float(variances.mean()), 0.0)) if self._rows > 1 else 0.0

    def sketch(self, name: str) -> Tensor:
        """``(rows, numbers)`` of one parameter; zeros where nothing came."""
        found = self._sketches.get(name)
        if found is None:
            return torch.zeros(self._rows, 1, dtype=torch.float32, device="cpu")
        return found.flatten(1).cpu()

    def _halved(self, name: str, side: int, sketch: Tensor) -> list[Tensor]:
        """What each half of a side's signs gave; the same twice where it stayed as it is."""
        shape = self._shapes[name]
        if side >= len(shape) or self._numbers(name, side) == shape[side]:
            return [sketch, sketch]
        return list(sketch.chunk(2, 1 + side))

    def _scale(self, name: str) -> float:
        """What signs of ±1 have made too large."""
        shape = self._shapes[name]
        numbers = [self._numbers(name, side) for side in range(len(shape))]
        return 1 / math.prod(p for p, width in zip(numbers, shape, strict=True) if p < width)

    def _of_rest(self) -> Tensor:
        if not self._has_rest:
            return torch.zeros(self._rows, self._rows, dtype=torch.float64, device="cpu")
        return self._rest.gramian()

    def _reduces(self, name: str) -> bool:
        shape = self._shapes[name]
        return len(shape) == 2 or (len(shape) == 1 and shape[0] <= _LONG_VECTOR)

    def _numbers(self, name: str, side: int) -> int:
        """What is left of one side of a matrix, or of a vector."""
        width = self._shapes[name][side]
        if len(self._shapes[name]) == 1:
            return width if width <= _SHORT_VECTOR else min(width, self._size**2)
        return min(width, self._size)

    def _made(self, name: str, device: torch.device) -> Tensor:
        if name not in self._sketches:
            numbers = [self._numbers(name, side) for side in range(len(self._shapes[name]))]
            left, right = (*numbers, 1)[:2]
            self._sketches[name] = torch.zeros(
                self._rows, left, right, dtype=torch.float32, device=device
            )
        return self._sketches[name]

    def _signs_of(
        self, name: str, side: int, dtype: torch.dtype, device: torch.device
    ) -> Tensor | None:
        """``(width, p)`` of ±1; ``None`` where a side is narrow enough.

        Matrices of one layer share the signs of inputs of one width: projected once, used thrice.
        """
        key = (name, side, dtype, device)
        if key not in self._signs_for:
            width, size = self._shapes[name][side], self._numbers(name, side)
            layer = name.rpartition(".")[0]
            of = name if side == 0 else f"{layer.rpartition('.')[0]}/{width}"
            same = (of, side, dtype, device)
            if size < width and same not in self._signs:
                self._signs[same] = self._drawn(of, side, (width, size), device).to(dtype)
            self._signs_for[key] = self._signs.get(same) if size < width else None
        return self._signs_for[key]

    def _drawn(self, name: str, side: int, shape: tuple[int, int], device: torch.device) -> Tensor:
        """Random signs: the same in every process on the same kind of device."""
        text = f"{self._seed}/{name}/{side}".encode()
        seed = int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")
        source = device if device.type == "cuda" else torch.device("cpu")
        generator = torch.Generator(source).manual_seed(seed)
        words = torch.empty(-(-math.prod(shape) // 63), dtype=torch.int64, device=source)
        words.random_(generator=generator)  # 63 bits each
        places = torch.arange(63, device=source)
        # A part at a time: as int64 a vocabulary's signs would take a gigabyte.
        bits = [(part[:, None] >> places & 1).to(torch.int8) for part in words.split(_WORDS)]
        return (torch.cat(bits).flatten()[: math.prod(shape)].view(shape) * 2 - 1).to(device)


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are views of the same numbers."""
    return (
        one.data_ptr() == other.data_ptr()
        and one.shape == other.shape
        and one.stride() == other.stride()
        and one._version == other._version
    )
