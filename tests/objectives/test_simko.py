"""SimKO's surrogate against its gradient, written out token by token."""

import pytest
import torch

from passk_guard.objectives.simko import simko_surrogate


def batch(seed=0, b=4, t=6, v=8):
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(b, t, v, generator=rng, dtype=torch.float64)
    tokens = torch.randint(v, (b, t), generator=rng)
    tokens[:, ::2] = logits[:, ::2].argmax(-1)
    mask = torch.ones(b, t)
    mask[0, 4:] = 0
    return logits, tokens, mask, torch.tensor([1.0, -1.0, 0.5, -0.5], dtype=torch.float64)


def gradient(logits, old, tokens, mask, advantages, **settings):
    logits = logits.clone().requires_grad_()
    simko_surrogate(logits, old, tokens, mask, advantages, **settings).sum().backward()
    return logits.grad


def slow(logits, tokens, mask, advantages, top_k, smoothing, forking, penalty):
    """On-policy: A (e_token - π), with a share α of it spread over the top candidates."""
    out = torch.zeros_like(logits)
    for i in range(len(logits)):
        steps = [t for t in range(logits.shape[1]) if mask[i, t]]
        pi = logits[i].float().double().softmax(-1)
        entropy = torch.stack([-(pi[t] * pi[t].log()).sum() for t in steps])
        bar = torch.quantile(entropy, forking)
        for t, h in zip(steps, entropy, strict=True):
            direction = -pi[t].clone()
            weight = advantages[i]
            best = pi[t].topk(top_k).indices
            if h > bar + 1e-9 and advantages[i] > 0:
                direction[tokens[i, t]] += 1 - smoothing
                direction[best] += smoothing / top_k
            else:
                direction[tokens[i, t]] += 1
                if h > bar + 1e-9 and tokens[i, t] == best[0]:
                    weight = weight * penalty
            out[i, t] = weight * direction
    return out


@pytest.mark.parametrize("forking", [0.0, 0.5, 0.8])
def test_on_policy_gradient(forking):
    logits, *rest = batch()
    settings = {"top_k": 3, "smoothing": 0.1, "forking": forking, "penalty": 1.3}
    got = gradient(logits, logits, *rest, **settings)
    torch.testing.assert_close(got, slow(logits, *rest, **settings), atol=1e-5, rtol=1e-4)
    assert not got[0, 4:].any()


def test_without_forks_it_is_ppo():
    logits, tokens, mask, advantages = batch()
    new = logits + 0.3 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    got = simko_surrogate(new, logits, tokens, mask, advantages, forking=1.0)
    change = (new.float().log_softmax(-1) - logits.float().log_softmax(-1)).exp()
    ratio = change.gather(-1, tokens[..., None])[..., 0]
    a = advantages[:, None]
    want = torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a) * mask
    torch.testing.assert_close(got, want)
    with_forks = simko_surrogate(new, logits, tokens, mask, advantages, penalty=2.0)
    assert not torch.allclose(with_forks, want)


def test_bad_settings():
    values = batch()
    with pytest.raises(ValueError, match=r"smoothing must lie in \[0, 1\], got 2"):
        simko_surrogate(values[0], *values, smoothing=2)
    with pytest.raises(ValueError, match="top_k must lie between 1 and 8, got 9"):
        simko_surrogate(values[0], *values, top_k=9)
