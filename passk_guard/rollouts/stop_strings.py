"""Where an answer ends because its text holds a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class StopStrings:
    """A stopping criterion for ``generate`` that also tells where each answer has ended.

    transformers' own does not tell, and without an end-of-sequence token what is sampled after an
    end looks like the answer.

    Args:
        strings: any of them ends an answer, with the token that completes it.
        decode: text of token ids.
        prompt: tokens before the answers.

    Attributes:
        lengths: of each answer, its tokens up to the end; ``None`` where none was reached.
    """

    def __init__(
        self, strings: Sequence[str], decode: Callable[[list[int]], str], prompt: int
    ) -> None:
        self._strings, self._decode, self._prompt = strings, decode, prompt
        # A character may take four tokens, and the first token of a text may lose its space.
        self._tail = 4 * max(map(len, strings)) + 4
        self.lengths: list[int | None] = []

    def __call__(self, input_ids: Tensor, scores: Any = None, **kwargs: Any) -> Tensor:
        """Of each row, whether it has ended; ``(b,)``."""
        answers = input_ids[:, self._prompt :]
        self.lengths = self.lengths or [None] * len(answers)
        for i, tail in enumerate(answers[:, -self._tail :].tolist()):
            if self.lengths[i] is None:
                text = self._decode(tail)
                if any(string in text for string in self._strings):
                    self.lengths[i] = answers.shape[1]
        ended = [length is not None for length in self.lengths]
        return torch.tensor(ended, dtype=torch.bool, device=input_ids.device)
