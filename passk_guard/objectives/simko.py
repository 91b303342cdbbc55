"""SimKO's token-level weighting, for training loops that have the policy's logits at hand."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["simko_surrogate"]


def simko_surrogate(
    logits: Tensor,
    old_logits: Tensor,
    tokens: Tensor,
    mask: Tensor,
    advantages: Tensor,
    *,
    top_k: int = 3,
    smoothing: float = 0.01,
    forking: float = 0.8,
    penalty: float = 1.1,
    clip: float = 0.2,
) -> Tensor:
    """Per-token surrogate to be maximised (SimKO: Simple Pass@K Policy Optimization, 2510.14807).

    Pass@k suffers where the policy concentrates on its first candidate. At *forking* tokens, those
    whose entropy is above the rollout's own quantile, a right rollout also lifts the ``top_k``
    candidates, ``(1-α) ρ + α/K Σ_c sg(ρ/ρ_c) ρ_c`` in place of the ratio ρ, and a wrong rollout's
    advantage is multiplied by ``penalty`` where the sampled token is the first candidate. It is no
    estimator of ∇J_k: the guard's weights in force do not know of it.

    Args:
        logits: ``(b, T, V)`` of the present policy, differentiable, at the sampled positions.
        old_logits: ``(b, T, V)`` of the policy that sampled.
        tokens: ``(b, T)`` sampled.
        mask: ``(b, T)`` 1 on sampled tokens.
        advantages: ``(b,)``; above 0 is a right rollout.
        top_k: candidates that share in the lift.
        smoothing: α, their share.
        forking: quantile of a rollout's token entropies from which a token is a fork; 1 is none.
        penalty: of wrong rollouts on their first candidate.
        clip: PPO's, on the ratio.

    Returns:
        ``(b, T)``, 0 outside ``mask``; average it as your loss does, with the sign turned.

    Raises:
        ValueError: a share lies outside [0, 1], or ``top_k`` exceeds the vocabulary.
    """
    for name, share in (("smoothing", smoothing), ("forking", forking)):
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"{name} must lie in [0, 1], got {share!r}.")
    if not 1 <= top_k <= logits.shape[-1]:
        raise ValueError(f"top_k must lie between 1 and {logits.shape[-1]}, got {top_k!r}.")
    present = mask.bool()
    scores, old = logits.float().log_softmax(-1), old_logits.detach().float().log_softmax(-1)
    change = scores - old
    ratio = change.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).exp()

    entropy = -(old.exp() * old).sum(-1).masked_fill(~present, torch.nan)
    fork = present & (entropy > torch.nanquantile(entropy, forking, dim=-1, keepdim=True))
    best = old.topk(top_k, -1).indices
    lifts = change.gather(-1, best).exp()
    lift = (ratio.detach().unsqueeze(-1) / lifts.detach() * lifts).mean(-1)
    right = (advantages > 0).unsqueeze(-1)
    ratio = torch.where(fork & right, (1 - smoothing) * ratio + smoothing * lift, ratio)

    first = fork & ~right & (tokens == best[..., 0])
    weight = advantages.unsqueeze(-1) * torch.where(first, penalty, 1.0)
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return torch.where(present, torch.minimum(ratio * weight, clipped * weight), 0.0)
