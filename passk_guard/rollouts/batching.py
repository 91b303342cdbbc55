"""How many rollouts go through the model at once."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["TOKENS_AT_ONCE", "micro_batches"]

TOKENS_AT_ONCE = 2**14  # prompt and completion, where the host names no batch size


def micro_batches(n: int, size: int | None, width: int) -> Iterator[slice]:
    """Slices that cover ``range(n)``.

    Args:
        n: rollouts.
        size: at most so many at once; ``None``: as many as make 16 384 tokens.
        width: tokens of each.
    """
    size = size or max(TOKENS_AT_ONCE // width, 1)
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
