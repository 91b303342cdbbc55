"""What a trainer offers to the guard that watches it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import nn

from passk_guard.runtime.progress import Progress


@dataclass(frozen=True)
class Host:
    """What the trainer has to offer.

    Attributes:
        name: of its class, for messages.
        module: all that training may touch; what ``policy=`` is called with.
        model: the causal LM, for the default policy.
        tokenizer: its tokenizer.
        prompts: held-out prompts where the user names none.
        training_prompts: not to be measured on.
        reward_funcs: the trainer's own, where it has some.
        micro_batch: rollouts per backward.
        optimizer: gives the optimizer.
        autocast: the trainer's mixed precision.
        state: what verifiers get as ``trainer_state``.
        say: takes messages.
        progress: told where a look stands.
        samples_per_step: gives the sequences that an optimizer step trains on, where known.
        why_no_mix: why its loss cannot take a pass@1 term, where it cannot.
    """

    name: str
    module: nn.Module
    model: Any
    tokenizer: Any
    optimizer: Callable[[], Any]
    say: Callable[[str], None]
    progress: Progress
    prompts: Any = None
    training_prompts: Any = None
    reward_funcs: Any = None
    micro_batch: int | None = None
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    state: Any = None
    samples_per_step: Callable[[], int | None] = lambda: None
    why_no_mix: str | None = None
