"""Is what samples the rollouts what is trained? Its own log-probs, against the model's.

The model's own ``generate`` is what is trained but for rounding, and where it is not, that is said.
An inference engine computes in another precision, with other kernels, perhaps quantised, perhaps
with weights that lag behind or filters of its own. With μ the distribution that it samples from and
π the model's, of tokens drawn from μ:

    E[log μ - log π] = KL(μ ‖ π) ≥ 0        E[π/μ] = the share of π that μ can reach at all

so that a mean ratio below 1 is a filter, and a divergence with a mean ratio of 1 is another shape.

Levels and gradients are **not** corrected for it (the drift is, where it is no more than rounding:
:mod:`passk_guard.statistics.paired_drift`). Weighting rollouts by π/μ would leave the counts of
right ones those of μ: the prompt weights ``ŵ_k(c)`` are unbiased because c is binomial, and of
weighted rollouts no count is. What would be exact, subsets of rollouts weighted by the product of
their ratios, has a variance that grows exponentially in k times the length. So pass@1, pass@k and
the gradients are those of μ scored by π, and where that matters, it is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from passk_guard.rollouts.group import RolloutGroup

# Rounding in bfloat16 is known to cost 1e-4 to 1e-3 nats per token, mixtures of experts up to ten
# times that. Logits that are s times too sharp cost about (s - 1)² / 2 times the variance of log π:
# at s = 1.5 more than .02 nats, but for policies with little entropy left, where it is an eighth of
# the entropy. Below .002 nats a few thousand tokens tell nothing apart.
_SHARE, _LEAST, _MOST = 0.05, 0.002, 0.02
_SURE = 3.0


@dataclass(frozen=True)
class InferenceMismatch:
    """How far the distribution that rollouts come from is from the one that they are scored under.

    Attributes:
        tokens: compared.
        ratio: mean of π/μ over tokens: the share of the model's probability that the engine can
            reach. 1 but for noise, unless it filters.
        ratio_se: its standard error, over prompts.
        kl: KL(μ ‖ π), nats per token; estimated, so that it may be just below 0.
        kl_se: its standard error, over prompts.
        entropy: of the engine, nats per sampled token.
        effective: what the rollouts would be worth with their ratios as weights, as a share of
            their number: the effective sample size. It falls with the length of completions,
            whatever the cause.
    """

    tokens: int
    ratio: float
    ratio_se: float
    kl: float
    kl_se: float
    entropy: float
    effective: float

    @property
    def bound(self) -> float:
        """The divergence, in nats per token, above which it is another distribution."""
        return min(max(_SHARE * self.entropy, _LEAST), _MOST)

    @property
    def surely(self) -> bool:
        """Whether it is, by 3 standard errors."""
        return self.kl - _SURE * self.kl_se > self.bound

    @property
    def left_out(self) -> float:
        """Share of the model's probability that the engine surely never gives."""
        return max(0.0, 1 - self.ratio - _SURE * self.ratio_se)


def inference_mismatch(
    groups: Sequence[RolloutGroup], log_probs: Sequence[Tensor]
) -> InferenceMismatch | None:
    """Compare both log-probs of the tokens that were sampled.

    Args:
        groups: prompts with their rollouts.
        log_probs: ``(n, L)`` for each, under the model.

    Returns:
        ``None`` where nobody told what it sampled from, or for fewer than two prompts.
    """
    prompts: list[np.ndarray] = []  # of each: tokens, sums of π/μ, log μ - log π, -log μ
    sequences: list[np.ndarray] = []
    for group, scores in zip(groups, log_probs, strict=True):
        if group.sampling_log_probs is None:
            continue
        engine = group.sampling_log_probs.double().cpu()
        model = scores.double().cpu()
        # An engine may give none for a token: NaN.
        known = group.completion_mask.bool().cpu() & engine.isfinite() & model.isfinite()
        log_ratio = (model - engine).where(known, model.new_zeros(()))
        if not known.any():
            continue
        sums = (known, log_ratio.exp()[known], -log_ratio, -engine[known])
        prompts.append(np.array([float(values.sum()) for values in sums]))
        sequences.append(log_ratio.sum(-1).numpy())
    if len(prompts) < 2:
        return None
    each = np.array(prompts)
    tokens = each[:, 0]
    ratio, kl, entropy = each[:, 1:].sum(0) / tokens.sum()
    weights = np.concatenate(sequences)
    weights = np.exp(weights - weights.max())
    return InferenceMismatch(
        tokens=int(tokens.sum()),
        ratio=float(ratio),
        ratio_se=_se(each[:, 1], tokens, float(ratio)),
        kl=float(kl),
        kl_se=_se(each[:, 2], tokens, float(kl)),
        entropy=float(entropy),
        effective=float(weights.sum() ** 2 / (weights**2).sum() / len(weights)),
    )


def _se(sums: np.ndarray, tokens: np.ndarray, mean: float) -> float:
    """Of a mean over tokens, whose prompts are what is drawn independently."""
    m = len(tokens)
    residuals = sums - mean * tokens
    return float(np.sqrt(m / (m - 1) * (residuals**2).sum()) / tokens.sum())
