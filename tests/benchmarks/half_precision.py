"""What rounding does to the drift of long rollouts in half precision: a gain out of nothing?

    python tests/benchmarks/half_precision.py        # quarter of an hour on a core

A Llama with random weights, in float32 and in bfloat16, samples 150 tokens through ``HFPolicy``,
with a cache. Its rollouts are scored, and again after weights have moved by so little that the
truth is nothing: every rollout is right, whatever is sampled. Told is the change of pass@1 in
points and its standard error, with weights from what was sampled from and, as a control, as if what
was scored had been sampled from. What the weights were moved by is the same in both precisions.
Figures are left in ``results/half_precision.json``.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import ambiguous_arithmetic as task
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from passk_guard import HFPolicy
from passk_guard.rollouts.scores import score_all
from passk_guard.runtime.isolation import isolated
from passk_guard.statistics.paired_drift import paired_change

RESULTS = Path(__file__).parent / "results" / "half_precision.json"
TOKENS, PROMPTS, N, MOVE = 150, 1536, 8, 1e-4


def model() -> Any:
    """Its log-probs are as uneven as a language model's, and so is their rounding."""
    torch.manual_seed(0)
    shape = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4}
    found = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=256,
            num_attention_heads=4,
            max_position_embeddings=1024,
            initializer_range=0.06,
            **shape,
        )
    ).eval()
    with torch.no_grad():
        found.lm_head.weight.mul_(4.0)
    return found


@torch.no_grad()
def measured(dtype: torch.dtype) -> dict[str, Any]:
    """Changes and their standard errors, in points."""
    moving = model().to(dtype)
    policy = HFPolicy(moving, task.make_tokenizer(), max_completion_length=TOKENS)
    moving.generation_config.eos_token_id = 256  # which is no token: nothing ends early
    rows = [{"prompt": "1 2 ="}] * PROMPTS
    with isolated(moving, seed=0):
        groups = policy.generate(rows, list(range(PROMPTS)), N)
    groups = [replace(group, success=torch.ones(N)) for group in groups]
    before = score_all(policy, groups)
    for parameter in moving.parameters():
        parameter += MOVE * torch.randn(parameter.shape).to(dtype) * parameter.abs().mean()
    after = score_all(policy, groups)
    scored = [replace(g, sampling_log_probs=b) for g, b in zip(groups, before, strict=True)]
    told, control = (paired_change(g, before, after) for g in (groups, scored))
    apart = torch.cat(
        [(b - g.sampling_log_probs).nansum(-1) for g, b in zip(groups, before, strict=True)]
    )
    return {
        "told": 100 * told.change,
        "told_se": 100 * told.se,
        "as_scored": 100 * control.change,
        "as_scored_se": 100 * control.se,
        "variance": float(apart.var()),
        "rollouts": len(apart),
    }


def main() -> None:
    figures = {str(d).removeprefix("torch."): measured(d) for d in (torch.float32, torch.bfloat16)}
    for name, found in figures.items():
        print(name, {key: round(value, 4) for key, value in found.items()}, flush=True)
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
