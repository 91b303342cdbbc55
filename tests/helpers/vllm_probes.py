"""Probes of trainers whose rollouts come from a vLLM engine in the process."""

from __future__ import annotations

import vllm_runs  # before whatever else imports vLLM
from trl_runs import GUARD, held_out

from passk_guard.integrations.trl import PassKGuardCallback

FILTERS = {
    "top_k": 2,
    "top_p": 0.9,
    "repetition_penalty": 1.3,
    "temperature": 0.7,
    "generation_kwargs": {"allowed_token_ids": [4, 5, 6], "logit_bias": {4: 0.5}},
}


def guarded(trainer, **settings):
    return PassKGuardCallback(trainer, prompts=held_out(), **{**GUARD, **settings})


def generated(trainer, n=8, prompts=8, *, served=None, **settings):
    """Rollouts, at ``report_temperature=served`` where that is given, and their log-probs."""
    policy, pool = (guard := guarded(trainer, **settings).guard).policy, guard.pool
    ids = list(range(prompts))
    with policy.isolated(0):
        groups = policy.generate([pool.rows[i] for i in ids], ids, n, served)
        scores = [policy.log_probs(*group.tokens).detach() for group in groups]
    return groups, scores


def counted(trainer):
    """Calls of the engine from now on: how many prompts, with what."""
    calls, llm = [], trainer.vllm_generation.llm
    original = type(llm).generate

    def generate(prompts, sampling_params, **more):
        calls.append((len(prompts), sampling_params))
        return original(llm, prompts, sampling_params=sampling_params, **more)

    llm.generate = generate
    return calls


def engines_as_made():
    """Engines are shared: what a test puts before their methods goes with it."""
    for llm in vllm_runs.ENGINES.values():
        for name in ("generate", "sleep", "wake_up"):
            vars(llm).pop(name, None)
        vars(llm.llm_engine).pop("step", None)
