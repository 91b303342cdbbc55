"""Tiny causal language models of many makes, for what must hold on each."""

from __future__ import annotations

import torch
from torch import nn

_SMALL = {
    "vocab_size": 32,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**_SMALL))


def tied_llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**_SMALL, tie_word_embeddings=True))


def qwen2():
    """Biases on queries, keys and values."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(**_SMALL))


def qwen3():
    """Norms of every head."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**_SMALL, head_dim=8, tie_word_embeddings=True))


def gpt2():
    """Weights the other way round, positions looked up once for all, tied."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(vocab_size=32, n_positions=64, n_embd=32, n_layer=2, n_head=4)
    )


def gemma():
    """Scaled embeddings, norms that multiply by one more than their weight."""
    from transformers import GemmaConfig, GemmaForCausalLM

    return GemmaForCausalLM(GemmaConfig(**_SMALL, head_dim=8, pad_token_id=0))


def moe():
    """Experts, which see the tokens that are routed to them."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            **_SMALL, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16
        )
    )


def lora():
    import peft

    config = peft.LoraConfig(
        r=2, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False
    )
    return peft.get_peft_model(llama(), config)


MAKES = {make.__name__: make for make in (llama, tied_llama, qwen2, qwen3, gpt2, gemma, moe, lora)}


def make(name: str, seed: int = 0) -> nn.Module:
    """One of them, with norms and biases that are not all alike."""
    torch.manual_seed(seed)
    model = MAKES[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.2 * torch.randn_like(parameter)
    return model.eval()
