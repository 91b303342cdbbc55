"""What a TRL trainer samples with, and which prompts it has room for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from passk_guard.integrations._trl_vllm import engine_filters, plain_engine, reachable_engine
from passk_guard.rollouts.plain_sampling import CARRIED, filters, plain_config, plain_sampling
from passk_guard.runtime.isolation import kept_attributes


@contextmanager
def sampling_plainly(
    trainer: Any, n: int, temperature: float, failed: Callable[[Exception], None]
) -> Iterator[None]:
    """``n`` rollouts per prompt from the policy's own distribution, or its argmax at 0.

    Where a release of TRL gives no way to vLLM's settings, they are checked before training.

    Args:
        trainer: a trainer of TRL.
        n: rollouts per prompt.
        temperature: sampling temperature.
        failed: notes an error that one process alone has, to be raised on all.
    """
    with ExitStack() as stack:
        stack.enter_context(plain_engine(trainer, temperature, failed))
        # trl < 0.25 has one number for training and evaluation
        name = "num_generations_eval"
        name = name if hasattr(trainer, name) else "num_generations"
        names = (name, "generation_config", "generation_kwargs")
        stack.enter_context(kept_attributes(trainer, *names))
        setattr(trainer, name, n)
        own = getattr(trainer, "generation_config", None)
        if own is not None:
            config = plain_config(own, temperature, CARRIED)
            config.suppress_tokens = _image_tokens(trainer)
            stack.enter_context(plain_sampling(trainer.model, config))
            trainer.generation_config = config
            trainer.generation_kwargs = {}  # TRL would put them into the model's config again
        yield


def training_filters(trainer: Any) -> dict[str, Any]:
    """Settings by which training samples otherwise than from the softmax."""
    if (engine := reachable_engine(trainer)) is not None:
        return engine_filters(engine, trainer.temperature)
    own = getattr(trainer, "generation_config", None)
    if own is None:
        return {}
    found = filters(own, getattr(trainer.model, "generation_config", None))
    if found.get("suppress_tokens") == _image_tokens(trainer):
        found.pop("suppress_tokens", None)
    return found


def _image_tokens(trainer: Any) -> list[int] | None:
    """Placeholders for images, which TRL keeps a model from answering with: no image is there.

    They are of no probability in a model that was trained on images, so scores stay right.
    """
    token = getattr(trainer.model.config, "image_token_id", None)
    suppressed = trainer.generation_config.suppress_tokens or ()
    return [token] if token is not None and token in suppressed else None


def why_unfit(trainer: Any, rows: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """Of each row: why the trainer cannot answer its prompt; ``None`` where it can.

    With images or environments a prompt's tokens are known to the trainer alone.
    """
    if (
        {"image", "images"} & set(rows[0])
        or hasattr(trainer.processing_class, "image_processor")
        or getattr(trainer, "environments", None)
        or getattr(trainer, "environment_factories", None)
        or getattr(trainer, "rollout_func", None) is not None
    ):
        return [None] * len(rows)
    limit, answer = _limit(trainer)
    wanted = "an answer" if answer == 1 else f"max_completion_length={answer}"

    def why(prompt: Any) -> str | None:
        try:
            length = _length(trainer, prompt)
        except Exception as error:
            return f"is refused by the tokenizer: {type(error).__name__}: {error}"
        if limit is None or length + answer <= limit:
            return None
        return f"has {length} tokens, which leaves no room for {wanted} within {limit} positions"

    return [why(row["prompt"]) for row in rows]


def answer_ends(trainer: Any) -> tuple[list[int], int]:
    """Tokens that end an answer, and how many tokens it may have, as the trainer counts them.

    vLLM's stop strings leave an answer shorter.
    """
    eos = getattr(trainer, "eos_token_ids", None) or [trainer.eos_token_id]
    return eos, _longest(trainer)


def _longest(trainer: Any) -> int:
    own = getattr(getattr(trainer, "generation_config", None), "max_new_tokens", None)
    return int(own or trainer.max_completion_length)


def _limit(trainer: Any) -> tuple[int | None, int]:
    """Positions, and how many an answer must find.

    vLLM cuts answers at its own limit. In the process nothing does: positions from a table run out
    with an error, on a GPU one that ends the run; rotary ones, computed as they come, go on.
    """
    config = trainer.model.config
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    positions = getattr(config, "max_position_embeddings", None)
    if getattr(trainer, "use_vllm", False):
        llm = getattr(getattr(trainer, "vllm_generation", trainer), "llm", None)
        if llm is not None:
            return int(llm.llm_engine.model_config.max_model_len), 1
        return getattr(trainer.args, "vllm_max_model_length", None) or positions, 1
    rotary = any(name.endswith("inv_freq") for name, _ in trainer.model.named_buffers())
    return None if rotary else positions, _longest(trainer)


def _length(trainer: Any, prompt: Any) -> int:
    """Tokens of a prompt as the trainer makes them."""
    tokenizer = trainer.processing_class
    if isinstance(prompt, str):
        ids = tokenizer(text=prompt)["input_ids"]
    else:
        ids = tokenizer.apply_chat_template(
            prompt,
            tools=getattr(trainer, "tools", None) or None,
            chat_template=getattr(trainer, "chat_template", None),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            **(getattr(trainer, "chat_template_kwargs", None) or {}),
        )["input_ids"]
    if len(ids) and isinstance(ids[0], (list, tuple)):  # processors take batches only
        ids = ids[0]
    longest = getattr(trainer, "max_prompt_length", None)  # trl < 0.26 cuts prompts
    return len(ids) if longest is None else min(len(ids), longest)
