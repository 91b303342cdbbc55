"""Causal language models with a Hugging Face interface as a policy. Duck-typed: no import."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from math import inf
from types import NoneType
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from passk_guard.checks import check_whole
from passk_guard.errors import ProbeError
from passk_guard.rollouts.group import RolloutGroup, beside, packed
from passk_guard.rollouts.plain_sampling import plain_config, plain_sampling
from passk_guard.rollouts.recorded_sampling import recorded_sampling
from passk_guard.rollouts.stop_strings import StopStrings
from passk_guard.rollouts.token_log_probs import token_log_probs
from passk_guard.runtime.isolation import checkpointing_without_dropout, kept_modes
from passk_guard.runtime.sharding import generating, named_parameters, runs_together

_DEFAULT_LENGTH = 256


class HFPolicy:
    """Samples from a causal LM and scores what it sampled.

    Prompts are strings, tokenised as they stand, or chat messages, through the tokenizer's chat
    template with a generation prompt, as TRL does. Sampling is from the plain softmax at
    ``temperature``: every filter and penalty of the model's generation config is off, transformers'
    hidden ``top_k=50`` too, or scores would not belong to the sampling distribution. What ends an
    answer there ends it here: ``eos_token_id`` (and the tokenizer's), ``stop_strings``,
    ``max_new_tokens``, ``max_length``. Not ``max_time``, which is of the machine, and nothing that
    forces or forbids an end. One answer per prompt: conversations may have any number of turns, but
    tools, environments and images need TRL's own generation and are refused.

    Args:
        model: called like ``AutoModelForCausalLM``; has ``generate`` and ``generation_config``.
        tokenizer: with ``eos_token_id``, ``decode``, and a chat template where prompts are chats.
        max_completion_length: tokens; by default the model's ``max_new_tokens``, else 256 within
            its ``max_length``. Capped by the model's positions.
        temperature: of the sampling.
        rollouts_at_once: batch of one ``generate`` call.
        chat_template_kwargs: what the chat template takes, such as ``{"enable_thinking": False}``.
            A row's column of this name goes before it.

    Attributes:
        model: the model.
        tokenizer: its tokenizer.

    Raises:
        ValueError: an argument is unusable.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_completion_length: int | None = None,
        temperature: float = 1.0,
        rollouts_at_once: int = 64,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        if not hasattr(model, "generate") or not hasattr(model, "generation_config"):
            raise ValueError(
                f"model must be a causal LM that generates, got {type(model).__name__}. Pass one "
                "made by AutoModelForCausalLM, or a policy of your own: policy=."
            )
        if not callable(tokenizer) or not hasattr(tokenizer, "decode"):
            raise ValueError(
                f"tokenizer must be a tokenizer, got {type(tokenizer).__name__}. Pass it as "
                "processing_class= to the trainer, or policy=lambda model: HFPolicy(model, "
                "tokenizer) to the callback."
            )
        if not 0 < temperature < float("inf"):
            raise ValueError(
                f"temperature must be above 0, got {temperature!r}. A policy gradient needs "
                "sampled rollouts, not greedy ones."
            )
        if max_completion_length is not None and max_completion_length < 1:
            raise ValueError(
                f"max_completion_length must be at least 1, got {max_completion_length!r}."
            )
        if not isinstance(chat_template_kwargs, (Mapping, NoneType)):
            raise ValueError(
                "chat_template_kwargs must hold values by name, such as "
                f"{{'enable_thinking': False}}, got {chat_template_kwargs!r}."
            )
        check_whole("rollouts_at_once", rollouts_at_once, 1)
        self._template_kwargs = dict(chat_template_kwargs or {})
        self.model, self.tokenizer = model, tokenizer
        self._temperature, self._at_once = temperature, rollouts_at_once
        own = model.generation_config
        longest = max_completion_length or getattr(own, "max_new_tokens", None)
        whole = getattr(own, "max_length", None)  # of prompt and answer; yields to the others
        if longest is not None or whole == getattr(type(own)(), "max_length", None):
            whole = None  # transformers 4 has a default
        self._longest, self._whole = longest or _DEFAULT_LENGTH, whole
        stops = getattr(own, "stop_strings", None) or ()
        self._stops = [stops] if isinstance(stops, str) else list(stops)

    @property
    def settings(self) -> dict[str, Any]:
        """What its rollouts depend on beside the weights, as plain values."""
        more = {
            "max_length": self._whole,
            "stop_strings": self._stops,
            "chat_template_kwargs": self._template_kwargs,
        }
        return {
            "temperature": self._temperature,
            "max_completion_length": self._longest,
            **{name: value for name, value in more.items() if value},
        }

    def parameters(self) -> Iterable[tuple[str, Parameter]]:
        """The model's named parameters."""
        return named_parameters(self.model)

    def log_probs(
        self, input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor
    ) -> Tensor:
        """Per-token log-probabilities, differentiable, ``(b, L)``."""
        device = self._device
        with checkpointing_without_dropout(self.model):
            return token_log_probs(
                self.model,
                input_ids.to(device),
                attention_mask.to(device),
                completion_mask.to(device),
                self._temperature,
            )

    @torch.no_grad()
    def generate(
        self,
        rows: Sequence[Mapping[str, Any]],
        row_ids: Sequence[int],
        n: int,
        temperature: float | None = None,
    ) -> list[RolloutGroup]:
        """Sample ``n`` rollouts per row; not verified, see :class:`RolloutGroup`."""
        prompts = [self._prompt_ids(row, i) for row, i in zip(rows, row_ids, strict=True)]
        repeated = [prompt for prompt in prompts for _ in range(n)]
        sampled: list[list[int]] = [[] for _ in repeated]
        cut = [False] * len(repeated)
        told: list[list[float] | None] = [None] * len(repeated)
        temperature = self._temperature if temperature is None else temperature
        with self._neutral(temperature) as config:
            for batch, room in self._batches([len(prompt) for prompt in repeated]):
                config.max_new_tokens = room
                with recorded_sampling(self.model, temperature) as calls:
                    found = self._sample([repeated[j] for j in batch], config)
                for i, j in enumerate(batch):
                    sampled[j], cut[j] = found[i]
                    told[j] = calls[0].of(i, sampled[j]) if len(calls) == 1 else None
        groups = []
        for i, (row, row_id) in enumerate(zip(rows, row_ids, strict=True)):
            which = slice(i * n, (i + 1) * n)
            mine, prompt = sampled[which], [prompts[i]] * n
            tokens = packed(prompt, mine, [[1] * len(ids) for ids in mine])
            groups.append(
                RolloutGroup(
                    row_id,
                    *tokens,
                    success=torch.full((n,), torch.nan, dtype=torch.float32, device="cpu"),
                    truncated=torch.tensor(cut[which], device="cpu"),
                    completions=self._completions(mine, chat=not isinstance(row["prompt"], str)),
                    sampling_log_probs=beside(tokens[0], prompt, told[which]),
                )
            )
        return groups

    @property
    def _device(self) -> torch.device:
        device: torch.device = next(iter(self.model.parameters())).device
        return device

    @property
    def _eos(self) -> list[int]:
        """The model's and the tokenizer's, as TRL and vLLM have it."""
        eos = getattr(self.model.generation_config, "eos_token_id", None)
        found = [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
        own = self.tokenizer.eos_token_id
        return found if own is None or own in found else [*found, own]

    def unfit(self, rows: Sequence[Mapping[str, Any]]) -> list[str | None]:
        """Of each row: why it cannot be sampled, if so. It has tools or images, or is too long."""
        return [self._why_unfit(row) for row in rows]

    def _why_unfit(self, row: Mapping[str, Any]) -> str | None:
        unsupported = {"image", "images", "tools", "environment"} & set(row)
        if unsupported or _has_tools_or_images(row["prompt"]):
            return (
                f"has {', '.join(sorted(unsupported)) or 'tools or images'}"
                ", which HFPolicy cannot sample: it takes text, one answer per prompt. Use "
                "passk_guard.integrations.trl, which generates through the trainer, or a policy of "
                "your own"
            )
        try:
            length = len(self._tokens(row))
        except Exception as error:
            return f"is refused by the tokenizer: {type(error).__name__}: {error}"
        if not length:
            return "has no tokens"
        if length + 1 > self._positions:
            limit = f"the model's {self._positions} positions"
            if self._positions == self._whole:
                limit = f"max_length={self._whole} of its generation config"
            return f"has {length} tokens, which leaves no room for an answer within {limit}"
        return None

    def _prompt_ids(self, row: Mapping[str, Any], row_id: int) -> list[int]:
        why = self._why_unfit(row)
        if why is not None:
            raise ProbeError(f"row {row_id} of prompts {why}")
        return self._tokens(row)

    def _tokens(self, row: Mapping[str, Any]) -> list[int]:
        prompt = row["prompt"]
        if isinstance(prompt, str):
            encoded = self.tokenizer(prompt)["input_ids"]
        else:
            encoded = self.tokenizer.apply_chat_template(
                prompt,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                **{**self._template_kwargs, **(row.get("chat_template_kwargs") or {})},
            )["input_ids"]
        return [int(token) for token in encoded]

    @property
    def _positions(self) -> float:
        """Tokens that prompt and answer may have together."""
        config = self.model.config
        config = config.get_text_config() if hasattr(config, "get_text_config") else config
        return min(getattr(config, "max_position_embeddings", None) or inf, self._whole or inf)

    def _batches(self, lengths: list[int]) -> Iterator[tuple[list[int], int]]:
        """Prompts to sample at once, by index, and the tokens that their answers may have.

        A prompt that nearly fills the model's positions shortens its own answers only.
        """
        rooms = [int(min(self._longest, self._positions - length)) for length in lengths]
        order = sorted(range(len(rooms)), key=rooms.__getitem__, reverse=True)
        parts = [list(part) for _, part in groupby(order, key=rooms.__getitem__)]
        if runs_together(self.model.parameters()):
            parts = [order]  # processes wait for one another: as many batches on each
        for part in parts:
            for start in range(0, len(part), self._at_once):
                batch = part[start : start + self._at_once]
                yield batch, min(rooms[j] for j in batch)

    @contextmanager
    def _neutral(self, temperature: float) -> Iterator[Any]:
        """A generation config that samples from the model's own distribution, or its argmax."""
        own = self.model.generation_config
        config = plain_config(own, temperature)
        config.eos_token_id = self._eos or None
        config.bos_token_id = getattr(own, "bos_token_id", None)
        pad = self.tokenizer.pad_token_id
        config.pad_token_id = self._eos[0] if pad is None and self._eos else pad or 0
        config.use_cache = True
        with plain_sampling(self.model, config):
            yield config

    def _sample(self, prompts: Sequence[list[int]], config: Any) -> list[tuple[list[int], bool]]:
        """Completions up to their end, and of each whether the limit cut it instead."""
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), config.pad_token_id, device="cpu")
        mask = torch.zeros_like(ids)
        for i, prompt in enumerate(prompts):
            ids[i, width - len(prompt) :] = torch.tensor(prompt, device="cpu")
            mask[i, width - len(prompt) :] = 1
        stops = [StopStrings(self._stops, self.tokenizer.decode, width)] if self._stops else []
        with kept_modes(self.model), generating(self.model):
            output = self.model.generate(
                input_ids=ids.to(self._device),
                attention_mask=mask.to(self._device),
                generation_config=config,
                synced_gpus=runs_together(self.model.parameters()),
                **({"stopping_criteria": stops} if stops else {}),
            )
        ends, eos = stops[0].lengths if stops else [None] * len(prompts), set(self._eos)
        rows = output[:, width:].tolist()
        return [_until_end(row, eos, end) for row, end in zip(rows, ends, strict=True)]

    def _completions(self, sampled: list[list[int]], *, chat: bool) -> tuple[Any, ...]:
        text = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in sampled]
        if chat:
            return tuple([{"role": "assistant", "content": t}] for t in text)
        return tuple(text)


def _until_end(tokens: list[int], eos: set[int], end: int | None) -> tuple[list[int], bool]:
    """The answer, and whether it has neither an end-of-sequence token nor another ``end``."""
    first = next((i + 1 for i, token in enumerate(tokens) if token in eos), None)
    ends = [length for length in (first, end) if length is not None]
    return (tokens[: min(ends)], False) if ends else (tokens, True)


def _has_tools_or_images(prompt: Any) -> bool:
    if isinstance(prompt, str):
        return False
    return any(
        message.get("role") == "tool"
        or message.get("tool_calls")
        or not isinstance(message.get("content"), str)
        for message in prompt
    )
