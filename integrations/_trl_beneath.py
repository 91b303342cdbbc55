"""Subclasses of TRL's trainers that train on other rollouts than were asked for, and probes there.

Replay buffers, dynamic sampling and their kind replace or drop rollouts as they score them. A probe
needs those of its own rows, and gets them from TRL's own methods, beneath the subclass's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch

from passk_guard.integrations._trl_rollouts import Rollout
from passk_guard.runtime.isolation import instead

Pairs = list[tuple[list[int], list[int]]]


def is_stock(cls: type) -> bool:
    """Whether a class is TRL's own trainer or a base of it; experimental ones are subclasses."""
    name = cls.__module__
    packages = ("trl", "transformers", "builtins")
    return name.partition(".")[0] in packages and not name.startswith("trl.experimental")


@contextmanager
def beneath(trainer: Any) -> Iterator[Any]:
    """Within, rewards are TRL's own; gives TRL's own method that samples and scores rows."""
    stock: Any = next(cls for cls in type(trainer).__mro__ if is_stock(cls))
    calculate = MethodType(stock._calculate_rewards, trainer)
    with instead(trainer, "_calculate_rewards", calculate):
        yield MethodType(stock._generate_and_score_completions, trainer)


@contextmanager
def tapped(
    trainer: Any, name: str, take: Callable[[Any], Any] = lambda found: found
) -> Iterator[list[Any]]:
    """Within, collect what each call of a method gives; nothing where a release has no such method.

    Args:
        trainer: the trainer.
        name: name of the method.
        take: what to keep of a call's result.
    """
    seen: list[Any] = []
    original = getattr(trainer, name, None)
    if original is None:
        yield seen
        return

    def call(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        seen.append(take(found))
        return found

    with instead(trainer, name, call):
        yield seen


def token_pairs(found: Any) -> Pairs:
    """Prompts' and completions' tokens in what TRL's ``_generate`` gives."""
    return [
        ([int(token) for token in prompt], [int(token) for token in answer])
        for prompt, answer in zip(found[0], found[1], strict=True)
    ]


def fault(
    rollouts: Sequence[Rollout],
    asked: int,
    generated: Sequence[Pairs],
    scored: Sequence[list[int]] | None,
) -> str | None:
    """Why these are not the rollouts that were asked for, if so.

    Args:
        rollouts: what the trainer handed back.
        asked: how many rows it was given.
        generated: what each call of ``_generate`` gave, see :func:`token_pairs`.
        scored: completions that the reward functions got; ``None`` where no function did.
    """
    if len(rollouts) != asked:
        return f"hands back {len(rollouts)} rollouts for {asked} rows in evaluation"
    if scored is not None and [r.completion for r in rollouts] != scored:
        return "hands back other rollouts than it scores"
    if generated:
        sampled = {(tuple(p), tuple(c)) for call in generated for p, c in call}
        prompts = [prompt for prompt, _ in generated[0]]
        if [r.prompt for r in rollouts] != prompts or any(
            (tuple(r.prompt), tuple(r.completion)) not in sampled for r in rollouts
        ):
            return "hands back other rollouts than it samples"
    return None


def raised_by_subclass(trainer: Any, error: Exception) -> bool:
    """Whether an error, other than of memory, comes from a method that a subclass has added."""
    if isinstance(error, torch.OutOfMemoryError):
        return False
    own = {
        getattr(method, "__code__", None)
        for cls in type(trainer).__mro__
        if not is_stock(cls)
        for method in vars(cls).values()
    }
    at, trace = None, error.__traceback__
    while trace is not None:
        if not trace.tb_frame.f_globals.get("__name__", "").startswith("torch."):
            at = trace.tb_frame.f_code
        trace = trace.tb_next
    return at is not None and at in own
