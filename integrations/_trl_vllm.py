"""TRL's vLLM engine within a probe: it samples plainly, in few calls, and is then as it was."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from passk_guard.integrations._trl_vllm_adapters import unrounded
from passk_guard.integrations._trl_vllm_server import server_in_a_probe
from passk_guard.runtime.isolation import instead, kept_attributes

# TRL's attributes of its engine that say how it samples, and what leaves the softmax as it is.
_PLAIN = {
    **{"repetition_penalty": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0},
    "structured_outputs_regex": None,
}
# Of vLLM's further parameters those that leave it open which token follows: what ends an answer,
# and how it is written down. A seed is not among them: it would make a prompt's rollouts one.
_CARRIED = (
    *("max_tokens", "stop", "stop_token_ids", "include_stop_str_in_output", "ignore_eos"),
    *("detokenize", "skip_special_tokens", "spaces_between_special_tokens", "repetition_detection"),
)
# Further parameters that are as good as not there.
_OFF = {
    **{"min_tokens": 0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "n": 1},
    **{"logprobs": 0, "ignore_eos": False},
}
# vLLM hands each sampled token's log-prob over as an object of some hundred bytes: a call of so
# many tokens takes up to about a gigabyte of the host's memory.
_TOKENS_AT_ONCE = 2**20


def reachable_engine(trainer: Any) -> Any:
    """The object that holds vLLM's settings; ``None`` without vLLM, or where a release has none."""
    engine = getattr(trainer, "vllm_generation", None)
    needed = (*_PLAIN, "temperature", "logprobs", "generation_kwargs", "mode")
    if not getattr(trainer, "use_vllm", False):
        return None
    return engine if all(hasattr(engine, name) for name in needed) else None


def check_engine(engine: Any) -> None:
    """Refuse what cannot be switched off for a probe.

    Raises:
        ValueError: logits processors of the engine's own.
    """
    model = _model_config(engine)
    if found := model.get("logits_processors"):
        named = ", ".join(getattr(one, "__qualname__", str(one)) for one in found)
        raise ValueError(
            f"vLLM was started with logits_processors ({named}), which decide what it samples and "
            "which a probe cannot switch off: its scores would not belong to its rollouts. Start "
            "it without them."
        )


def engine_filters(engine: Any, temperature: float) -> dict[str, Any]:
    """Settings by which training samples otherwise than from the softmax.

    Args:
        engine: what :func:`reachable_engine` gives.
        temperature: the trainer's, at which it scores.
    """
    plain = {**_PLAIN, **_OFF, "temperature": temperature}
    own = {name: getattr(engine, name) for name in _PLAIN}
    given = {**own, **engine.generation_kwargs}
    if given["top_k"] == -1:  # vLLM's own word for none
        given["top_k"] = 0
    return {
        name: value
        for name, value in given.items()
        if value is not None and name not in _CARRIED and plain.get(name) != value
    }


@contextmanager
def plain_engine(
    trainer: Any, temperature: float, failed: Callable[[Exception], None]
) -> Iterator[None]:
    """Within, the engine samples from the model's own distribution, or its argmax at 0.

    After, its settings and the model are as they were, none of the probe's prompts is left in its
    caches, where training would meet their rounding, nor any request that was not finished, which
    training would get among its own; and it sleeps where it slept.

    Args:
        trainer: without an engine that can be reached, nothing is done.
        temperature: sampling temperature.
        failed: notes an error of a server, to be raised on all processes.
    """
    engine = reachable_engine(trainer)
    if engine is None:
        yield
        return
    with ExitStack() as stack:
        names = (*_PLAIN, "temperature", "logprobs", "generation_kwargs")
        stack.enter_context(kept_attributes(engine, *names))
        if engine.mode == "server":
            client = getattr(engine, "vllm_client", None)
            stack.enter_context(server_in_a_probe(client, failed))
        else:
            stack.callback(_tidied, engine)
        synced = unrounded(engine.model, engine.sync_weights)
        stack.enter_context(instead(engine, "sync_weights", synced))
        for name, value in _PLAIN.items():
            setattr(engine, name, value)
        engine.temperature, engine.logprobs = temperature, 0
        kwargs = engine.generation_kwargs
        engine.generation_kwargs = {k: v for k, v in kwargs.items() if k in _CARRIED}
        try:
            yield
        except Exception:
            trainer._last_loaded_step = -1  # who knows which weights have arrived
            raise


def _tidied(engine: Any) -> None:
    llm = engine.llm
    if left := list(llm.llm_engine.output_processor.request_states):  # the probe has failed
        abort = llm.llm_engine.abort_request
        own_ids = {"internal": True} if "internal" in inspect.signature(abort).parameters else {}
        abort(left, **own_ids)
    if not getattr(engine, "enable_sleep_mode", False):
        llm.reset_prefix_cache()
    elif not getattr(engine, "_llm_weights_sleeping", True):
        llm.sleep(level=2)  # as TRL does after each call that went well
        engine._llm_weights_sleeping = True


@contextmanager
def tapped_engine(trainer: Any) -> Iterator[list[Any]]:
    """Collect what the engine says within: of each call, each rollout's tokens' log-probs.

    ``RLOOTrainer`` drops them.
    """
    engine, seen = reachable_engine(trainer), list[Any]()
    if engine is None:
        yield seen
        return
    original = engine.generate

    def generate(*args: Any, **kwargs: Any) -> Any:
        answer = original(*args, **kwargs)
        seen.append(answer[2])
        return answer

    with instead(engine, "generate", generate):
        yield seen


def rollouts_at_once(trainer: Any) -> int:
    """Rollouts of all processes in one call: as many as vLLM takes, else as in training.

    A long queue keeps the engine full, where each short call waits for its longest rollout. Not
    where something else would get them all at once that training gives few: a reward model, tools,
    environments, a rollout function.
    """
    own = int(trainer.args.generation_batch_size)
    others = ("tools", "environments", "environment_factories", "rollout_func")
    models = any(isinstance(func, torch.nn.Module) for func in trainer.reward_funcs)
    if reachable_engine(trainer) is None or models or any(getattr(trainer, o, 0) for o in others):
        return own
    each = math.ceil(_TOKENS_AT_ONCE / max(int(trainer.max_completion_length), 1))
    return max(own, each * int(trainer.accelerator.num_processes))


def log_prob_mode(engine: Any) -> str:
    """What vLLM's log-probs are of, in its own words; empty on processes that cannot know.

    Args:
        engine: what :func:`reachable_engine` gives.
    """
    if engine.mode == "server" and not hasattr(engine, "vllm_client"):
        return ""
    return str(_model_config(engine).get("logprobs_mode", "unknown"))


def tells_log_probs(mode: str, temperature: float) -> bool:
    """Whether log-probs are of the distribution that a probe samples from.

    Raw ones are of temperature 1. At 0 there is none.

    Args:
        mode: what :func:`log_prob_mode` gives.
        temperature: sampling temperature.
    """
    if mode == "processed_logprobs":
        return temperature != 0
    return mode == "raw_logprobs" and temperature == 1


def _model_config(engine: Any) -> Mapping[str, Any]:
    """vLLM's; empty where a server does not tell, and on the processes that have none."""
    if engine.mode == "colocate":
        found: Mapping[str, Any] = vars(engine.llm.llm_engine.model_config)
        return found
    try:
        info: Mapping[str, Any] = engine.vllm_client.get_server_info()["model_config"]
    except Exception:  # it tells in a mode for developers only, and TRL may do without
        return {}
    return info
