"""A vLLM server within a probe: one that dies or hangs costs the probe, not the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from passk_guard.runtime.isolation import instead, kept_attributes
from passk_guard.runtime.processes import world

# Seconds that a server may take for one call. Of the largest, a million tokens, it needs 600 a
# second.
_PATIENCE = 1800.0


@contextmanager
def server_in_a_probe(client: Any, failed: Callable[[Exception], None]) -> Iterator[None]:
    """Within, a server is waited for for so long, and what fails is noted where others wait.

    TRL's main process alone speaks to the server, and the others wait for what it says. Where there
    are others, it gives them something in the place of an answer, and the error is raised on all
    once they have met.

    Args:
        client: TRL's; ``None`` on the other processes.
        failed: notes an error, to be raised on all processes.
    """
    if client is None:
        yield
        return
    with ExitStack() as stack:
        if hasattr(client, "session"):
            stack.enter_context(_impatient(client.session))
        if world()[1] > 1:
            stack.enter_context(_never_silent(client, failed))
        yield


@contextmanager
def _impatient(session: Any) -> Iterator[None]:
    """TRL waits for ever, and would ask five times more."""
    with ExitStack() as stack:
        for adapter in session.adapters.values():
            stack.enter_context(kept_attributes(adapter, "max_retries"))
            adapter.max_retries = adapter.max_retries.new(read=0)
        stack.enter_context(
            instead(session, "request", partial(session.request, timeout=_PATIENCE))
        )
        yield


@contextmanager
def _never_silent(client: Any, failed: Callable[[Exception], None]) -> Iterator[None]:
    errors: list[Exception] = []

    def noted(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs) if not errors else None
        except Exception as error:
            errors.append(error)
            failed(error)
            return None

    def generate(original: Callable[..., Any], prompts: Any, *args: Any, **kwargs: Any) -> Any:
        answer = noted(original, prompts, *args, **kwargs)
        if answer is not None:
            return answer
        rollouts = len(prompts) * kwargs["n"]
        return {
            "prompt_ids": list(prompts),
            "completion_ids": [[0] for _ in range(rollouts)],
            "logprobs": [[[0.0]] for _ in range(rollouts)],
            "logprob_token_ids": [[[0]] for _ in range(rollouts)],
        }

    with ExitStack() as stack:
        for name in ("update_named_params", "reset_prefix_cache"):
            stack.enter_context(instead(client, name, partial(noted, getattr(client, name))))
        stack.enter_context(instead(client, "generate", partial(generate, client.generate)))
        yield
