"""Peak memory of scoring and of gradients at real shapes, beside a plain forward and backward.

    python tests/benchmarks/real_memory.py    # ten minutes on one core, 4 GB

Two layers of Llamas with random weights, rollouts of 128 tokens, eight at once, on the CPU. Peaks
of live tensors beyond the weights, in units of a plain forward and backward of eight rollouts with
the gradients that it leaves; the guard's are sketched.
"""

from __future__ import annotations

import json

import bench

# isort: split
import torch
from peak_memory import peak_memory
from tiny import CausalLMPolicy
from transformers import LlamaConfig, LlamaForCausalLM

from passk_guard.gradients import BackwardEngine, EngineSettings, HookEngine
from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.scores import score_all

RESULT = bench.RESULTS / "real_memory.json"
WIDTH, AT_ONCE, PROMPTS = 128, 8, 2
SHAPES = [(576, 49_152), (576, 151_936), (2_048, 49_152), (2_048, 151_936)]


def peaks(hidden: int, vocabulary: int, dtype: torch.dtype) -> dict[str, float]:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=8 * hidden // 3 // 64 * 64,
        num_hidden_layers=2,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model = model.to_empty(device="cpu").to(dtype).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    model.model.rotary_emb.inv_freq.copy_(10_000 ** -torch.linspace(0, 1, 32))
    policy = CausalLMPolicy(model)
    ids = torch.randint(vocabulary, (PROMPTS, AT_ONCE, WIDTH))
    ones, sampled = torch.ones_like(ids[0]), torch.ones_like(ids[0])
    sampled[:, : WIDTH // 4] = 0
    success = (torch.arange(AT_ONCE) % 2).float()
    groups = [RolloutGroup(i, t, ones, sampled, success) for i, t in enumerate(ids)]
    size = PassSize(AT_ONCE)

    def plain() -> None:
        policy.log_probs(*groups[0].tokens).sum().backward()

    settings = EngineSettings(passes=size, memory_limit=0, prompts=PROMPTS)
    engines = {"hooks": HookEngine, "backward": BackwardEngine}
    works = {"score": lambda: score_all(policy, groups, size)}
    for name, engine in engines.items():
        made = engine(policy, settings)
        made.gramian(groups, (0,))  # compares first, once
        works[name] = lambda made=made: made.gramian(groups, (0,))
    whole = peak_memory(plain)
    model.zero_grad()
    found = {name: round(peak_memory(work) / whole, 2) for name, work in works.items()}
    unmeasured = PassSize()
    unmeasured.fit(policy, groups)
    kept = unmeasured._measured[1] * AT_ONCE * WIDTH
    return {"plain_mib": round(whole / 2**20), "kept_mib": round(kept / 2**20), **found}


def main() -> None:
    done = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for hidden, vocabulary in SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            name = f"{hidden} {vocabulary} {str(dtype).removeprefix('torch.')}"
            if name not in done and (hidden, vocabulary, dtype) != (*SHAPES[-1], torch.float32):
                done[name] = peaks(hidden, vocabulary, dtype)
                print(name, done[name], flush=True)
                bench.write(RESULT.name, done)


if __name__ == "__main__":
    main()
