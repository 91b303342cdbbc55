"""What a probe may touch comes back as it was, also after an error."""

import random

import numpy as np
import pytest
import torch
from tiny import tiny_llama

from passk_guard.runtime.isolation import isolated, kept_attributes, kept_modes


def snapshot(model):
    return {
        "draws": (random.random(), np.random.rand(), torch.rand(3).tolist()),
        "training": [m.training for m in model.modules()],
        "flags": [m.__dict__.get("gradient_checkpointing") for m in model.modules()],
        "use_cache": model.config.use_cache,
        "generation": model.generation_config.to_dict(),
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
    }


def equal(a, b):
    grads = zip(a.pop("grads"), b.pop("grads"), strict=True)
    return a == b and all((x is None and y is None) or torch.equal(x, y) for x, y in grads)


def seed_all():
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)


def disturb(model):
    random.random(), np.random.rand(), torch.rand(7)
    model.train()
    model.config.use_cache = False
    model.generation_config.temperature = 0.3
    for module in model.modules():
        module.gradient_checkpointing = True
    for p in model.parameters():
        p.grad = torch.zeros_like(p)


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_everything_is_restored(tiny_lm, error):
    model = tiny_lm().train()
    model.model.layers[0].eval()  # a mixed state, as adapters leave it
    for module in model.modules():
        module.gradient_checkpointing = False
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    seed_all()
    before = snapshot(model)
    seed_all()
    try:
        with isolated(model, seed=11):
            assert not model.training
            disturb(model)
            if error:
                raise error
    except (RuntimeError, KeyboardInterrupt):
        pass
    assert equal(snapshot(model), before)


def piled_up(model):
    for _ in range(3):
        model.enable_input_require_grads()


def taken_away(model):
    model.disable_input_require_grads()


@pytest.mark.needs("transformers")
@pytest.mark.parametrize("disturb", [piled_up, taken_away])
def test_hooks_on_embeddings_stay_as_they_were(disturb):
    """TRL switches checkpointing at each generation; transformers adds a hook, or takes it away."""
    model = tiny_llama().train()
    model.enable_input_require_grads()
    embeddings = model.get_input_embeddings()
    hooks, handle = dict(embeddings._forward_hooks), model._require_grads_hook
    with isolated(model, seed=0):
        disturb(model)
        assert dict(embeddings._forward_hooks) != hooks
    assert dict(embeddings._forward_hooks) == hooks
    assert model._require_grads_hook is handle


def test_modes_are_kept_around_a_call_that_ends_in_train_mode(tiny_lm):
    model = tiny_lm().eval()
    next(m for m in model.modules() if m is not model).train()
    before = [m.training for m in model.modules()]
    with kept_modes(model):
        model.train()
    assert [m.training for m in model.modules()] == before
    with kept_modes(None):
        pass


def test_without_isolation_the_same_comparison_fails(tiny_lm):
    model = tiny_lm().train()
    seed_all()
    before = snapshot(model)
    seed_all()
    disturb(model)
    assert not equal(snapshot(model), before)


def test_probes_are_reproducible(tiny_lm):
    model = tiny_lm()
    draws = []
    for _ in range(2):
        torch.rand(5)
        with isolated(model, seed=11):
            draws.append(torch.rand(3).tolist())
    assert draws[0] == draws[1]


def test_kept_attributes_passes_over_missing_ones():
    thing = torch.nn.Linear(1, 1)
    with kept_attributes(thing, "in_features", "no_such_thing"):
        thing.in_features = 9
    assert thing.in_features == 1
