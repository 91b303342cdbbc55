"""Sampling from the model's own softmax, whatever its generation config holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from passk_guard.runtime.isolation import kept_attributes

# What a run's own config decides in a probe, too. None of it changes which token follows.
CARRIED = (
    # How long an answer may be, and what ends it. Each token before the end is sampled as scored.
    *("max_new_tokens", "max_length", "eos_token_id", "stop_strings"),
    *("bos_token_id", "pad_token_id", "decoder_start_token_id"),
    # Where keys and values lie, and in what portions they are computed.
    *("use_cache", "cache_implementation", "cache_config", "max_cache_len", "prefill_chunk_size"),
    *("continuous_batching_config", "max_batch_tokens", "num_blocks", "block_size"),
    *("compile_config", "disable_compile"),
)


def plain_config(own: Any, temperature: float, carried: Iterable[str] = ()) -> Any:
    """A generation config that samples from the plain softmax, or takes its argmax.

    It starts from a new one: what a release of transformers has beyond what is known here is at
    its default, and so is no filter, penalty, constraint, search or assistant.

    Args:
        own: of the model or the trainer.
        temperature: of the sampling; 0 is greedy.
        carried: attributes that are taken over from ``own``, see ``CARRIED``.
    """
    plain = type(own)()
    for name in carried:
        if getattr(own, name, None) is not None:
            setattr(plain, name, getattr(own, name))
    plain.do_sample = temperature != 0
    if temperature != 0:  # transformers' own default is top_k = 50
        plain.temperature, plain.top_k, plain.top_p = temperature, 0, 1.0
    return plain


@contextmanager
def plain_sampling(model: Any, config: Any) -> Iterator[None]:
    """Put a config in the place of the model's own, from which transformers fills gaps.

    Args:
        model: a module; wrappers such as PEFT's may hold the model proper further in.
        config: of :func:`plain_config`.
    """
    holders = [m for m in model.modules() if "generation_config" in vars(m)] or [model]
    with ExitStack() as stack:
        for holder in holders:
            stack.enter_context(kept_attributes(holder, "generation_config"))
            holder.generation_config = config
        yield


def filters(own: Any, gaps: Any = None) -> dict[str, Any]:
    """What a config makes of the softmax: all that is set in it and not in a plain one.

    Args:
        own: the config.
        gaps: that of the model, from which ``own`` is filled.
    """
    plain, unset = plain_config(own, 1.0), type(own)()
    defaults: dict[str, Any] = getattr(plain, "_get_default_generation_params", dict)()
    found = {}
    for name, default in vars(plain).items():
        value = getattr(own, name, None)
        if value == getattr(unset, name):
            value = getattr(gaps, name, value)
        default = defaults.get(name) if default is None else default
        no_filter = name.startswith("_") or name in (
            *CARRIED,
            "temperature",
            "transformers_version",
        )
        off = value is None or (value is False and default is None)
        if not no_filter and not off and value != default:
            found[name] = value
    return found
