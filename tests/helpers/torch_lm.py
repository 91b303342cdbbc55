"""A tiny causal language model in plain torch that follows the Hugging Face call.

For tests of the core, which needs no transformers: parts have the names and the switches that a
Llama's have there, so the same tests run on both.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint


class GenerationConfig(SimpleNamespace):
    def to_dict(self):
        return dict(vars(self))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.attention_dropout = heads, dropout
        self.qkv_proj = nn.Linear(width, 3 * width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        b, length, width = x.shape
        parts = self.qkv_proj(x).view(b, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        dropout = self.attention_dropout if self.training else 0.0
        mixed = scaled_dot_product_attention(*parts, attn_mask=visible, dropout_p=dropout)
        return self.o_proj(mixed.transpose(1, 2).reshape(b, length, width))


class Layer(nn.Module):
    """Checkpointed in train mode alone, as Hugging Face's are."""

    gradient_checkpointing = False

    def __init__(self, width: int, inner: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads, dropout)
        self.mlp = nn.Sequential(
            nn.Linear(width, inner, bias=False), nn.SiLU(), nn.Linear(inner, width, bias=False)
        )
        self.input_layernorm, self.post_attention_layernorm = (
            nn.LayerNorm(width),
            nn.LayerNorm(width),
        )

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        if self.gradient_checkpointing and self.training:
            return checkpoint(self._forward, x, visible, use_reentrant=self.use_reentrant)
        return self._forward(x, visible)

    def _forward(self, x: Tensor, visible: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), visible)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    def __init__(self, vocabulary: int, width: int, inner: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(64, width)
        self.layers = nn.ModuleList(Layer(width, inner, heads, dropout) for _ in range(2))
        self.norm = nn.LayerNorm(width)

    def forward(self, ids: Tensor, attention_mask: Tensor, position_ids: Tensor) -> Tensor:
        length = ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
        # Padding sees itself, so that no row of the softmax is empty.
        itself = torch.eye(length, dtype=torch.bool, device=ids.device)
        visible = causal & attention_mask.bool()[:, None, None] | itself
        x = self.embed_tokens(ids) + self.positions(position_ids)
        for layer in self.layers:
            x = layer(x, visible)
        return self.norm(x)


class TorchLM(nn.Module):
    def __init__(self, vocabulary=32, width=32, inner=48, heads=4, dropout=0.1, *, tied=False):
        super().__init__()
        self.config = SimpleNamespace(use_cache=True, vocab_size=vocabulary)
        self.generation_config = GenerationConfig(temperature=1.0)
        self.model = Body(vocabulary, width, inner, heads, dropout)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.apply(self._small)
        if tied:
            self.lm_head.weight = self.model.embed_tokens.weight

    @staticmethod
    def _small(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)

    def forward(
        self, input_ids, attention_mask=None, position_ids=None, labels=None, use_cache=False
    ):
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        logits = self.lm_head(self.model(input_ids, attention_mask, position_ids))
        loss = None
        if labels is not None:
            loss = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return SimpleNamespace(logits=logits, loss=loss)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def gradient_checkpointing_enable(self, settings: dict[str, bool]) -> None:
        for layer in self.model.layers:
            layer.gradient_checkpointing = True
            layer.use_reentrant = settings["use_reentrant"]

    def enable_input_require_grads(self) -> None:
        """Reentrant checkpointing gives no gradients where no input has one."""
        self.model.embed_tokens.register_forward_hook(lambda _, __, out: out.requires_grad_())
