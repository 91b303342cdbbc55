"""What a model's own ``generate`` samples from: the log-probs of its tokens, as it has them.

Generation and scoring round differently (a cache, other shapes, half precision), and a rollout of
600 tokens adds up 600 differences. With the log-probs of both, what rests on ratios stays unbiased:
see :mod:`passk_guard.statistics.paired_drift`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from passk_guard.runtime.isolation import instead


class Sampled(NamedTuple):
    """Of one ``generate`` call.

    Attributes:
        tokens: ``(b, T)`` token ids after the prompts, padding included.
        log_probs: ``(b, T)`` of each, at the temperature of the sampling.
    """

    tokens: Tensor
    log_probs: Tensor

    def of(self, i: int, completion: list[int]) -> list[float] | None:
        """Those of a completion, if it is what row ``i`` begins with."""
        length = len(completion)
        if i >= len(self.tokens) or self.tokens[i, :length].tolist() != completion:
            return None
        return [float(value) for value in self.log_probs[i, :length]]


@contextmanager
def recorded_sampling(model: Any, temperature: float) -> Iterator[list[Sampled]]:
    """Collect what each ``generate`` within samples; nothing where it cannot be told.

    Args:
        model: a module; wrappers such as PEFT's may hold the model proper further in.
        temperature: of the sampling; at 0 there is nothing to tell.
    """
    calls: list[Sampled] = []
    with ExitStack() as stack:
        for holder in _that_generate(model) if temperature > 0 else ():
            tapped = _tapped(holder.generate, temperature, calls)
            stack.enter_context(instead(holder, "generate", tapped))
        yield calls


def _that_generate(model: Any) -> list[Any]:
    holders = [m for m in model.modules() if "generation_config" in vars(m)]
    return [m for m in holders or [model] if _takes_processors(getattr(m, "generate", None))]


def _takes_processors(generate: Any) -> bool:
    return callable(generate) and "logits_processor" in inspect.signature(generate).parameters


def _tapped(generate: Any, temperature: float, calls: list[Sampled]) -> Any:
    def tapped(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("logits_processor") is not None:  # who knows what they make of the softmax
            return generate(*args, **kwargs)
        recorder = _Recorder(temperature)
        output = generate(*args, **kwargs, logits_processor=[recorder])
        if isinstance(output, Tensor) and (sampled := recorder.sampled(output)) is not None:
            calls.append(sampled)
        return output

    return tapped


class _Recorder:
    """A logits processor that changes nothing. It sees a token one call after its logits."""

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature
        self._prompt = 0
        self._last: Tensor | None = None
        self._found: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self._last is None:
            self._prompt = input_ids.shape[1]
        else:
            self._found.append(self._last.gather(-1, input_ids[:, -1:]))
        # Warpers come after it: a temperature is not in the scores yet.
        self._last = (scores.float() / self._temperature).log_softmax(-1)
        return scores

    def sampled(self, output: Tensor) -> Sampled | None:
        """Of ids, prompt and completion."""
        length = len(self._found) + 1
        tokens = output[:, self._prompt : self._prompt + length]
        if self._last is None or tokens.shape != (len(self._last), length):
            return None
        found = [*self._found, self._last.gather(-1, tokens[:, -1:])]
        return Sampled(tokens.cpu(), torch.cat(found, -1).cpu())
