"""Which rollout each token belongs to, where a module is called on tokens without a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_rows: ContextVar[Tensor | None] = ContextVar("rows of tokens", default=None)


@contextmanager
def tokens_of(rows: Tensor) -> Iterator[None]:
    """Within, a module that is called on ``(tokens, width)`` sees those of these rollouts.

    Args:
        rows: ``(tokens,)``, each one's row in the batch of rollouts.
    """
    token = _rows.set(rows)
    try:
        yield
    finally:
        _rows.reset(token)


def rows_of_tokens() -> Tensor | None:
    """What :func:`tokens_of` said; ``None`` outside."""
    return _rows.get()
