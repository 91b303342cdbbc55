"""Watched layers give the Gramian of autograd, on every make of model, and leave no trace."""

import copy

import architectures
import pytest
import torch
from test_gradients import explicit_gradients
from tiny import CausalLMPolicy, random_groups
from torch import nn

from passk_guard.gradients import ENGINES, EngineSettings, HookEngine
from passk_guard.gradients import hooks as hooks_module
from passk_guard.gradients.accumulators import ExactGramian
from passk_guard.gradients.hooked_pass import UnsupportedModelError, hooked_pass
from passk_guard.gradients.watching import Watch, known_layers
from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.scores import score
from passk_guard.rollouts.token_log_probs import token_log_probs
from passk_guard.runtime.isolation import isolated

EXACT = EngineSettings(memory_limit=float("inf"))
needs_transformers = pytest.mark.needs("transformers")


def engine(model, name="hooks", policy=CausalLMPolicy, **settings):
    return ENGINES.make(name, policy(model), EngineSettings(**{"memory_limit": 1e12} | settings))


def oracle(model, groups):
    """In float64, but for experts, which have no kernels for it."""
    wide = copy.deepcopy(model)
    gradients = explicit_gradients(wide if has_experts(model) else wide.double(), groups)
    return gradients @ gradients.T


def has_experts(model):
    return any("experts" in name for name, _ in model.named_parameters())


def error(got, want):
    """The worst one, in units of ``√(K_ii K_jj)``."""
    scale = want.diagonal().sqrt().clamp(min=1e-9)
    return float(((got - want) / torch.outer(scale, scale)).abs().max())


def same(model, groups, **settings):
    return error(engine(model, **settings).gramian(groups, (0,)), oracle(model, groups)) < 1e-5


def needed(name):
    return pytest.param(name, marks=pytest.mark.needs("peft" if name == "lora" else "transformers"))


@pytest.mark.parametrize("padding", ["right", "left"])
@pytest.mark.parametrize("name", [needed(name) for name in architectures.MAKES])
def test_it_is_the_gramian_of_autograd_on_every_make(name, padding):
    model = architectures.make(name)
    groups = random_groups(6, 5, padding=padding)
    taken = engine(model)
    assert error(taken.gramian(groups, (0,)), oracle(model, groups)) < 1e-5
    unknown = taken._unknown
    if name == "moe":
        assert unknown
        assert all("experts" in n or "gate" in n for n in unknown)
    elif name == "gemma":
        assert unknown == {"model.embed_tokens.weight"}  # what it gives is scaled
    else:
        assert not unknown


@needs_transformers
def test_parameters_that_are_unfrozen_later_are_compared_with_autograd_as_well():
    model, groups = architectures.make("gemma"), random_groups(6, 5)
    model.model.embed_tokens.requires_grad_(False)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    taken = engine(model)
    taken.gramian(groups, (0,))
    assert not taken._unknown
    model.model.embed_tokens.requires_grad_(True)
    assert error(taken.gramian(groups, (0,)), oracle(model, groups)) < 1e-5


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("at_once", [1, 3, 7, 11, None])
def test_however_many_rollouts_share_a_backward(tiny_lm, tied, at_once):
    assert same(tiny_lm(tied=tied).eval(), random_groups(6, 5), passes=PassSize(at_once))


def test_a_wrong_mask_fails_the_same_comparison(tiny_lm):
    model, groups = tiny_lm().eval(), random_groups(6, 5)
    want = oracle(model, groups)
    for group in groups:
        group.completion_mask[:, :-1] &= group.completion_mask[:, 1:]  # loses the last token
    assert error(engine(model).gramian(groups, (0,)), want) > 1e-2


def test_tied_weights_taken_for_two_fail_the_same_comparison(tiny_lm):
    model, groups = tiny_lm(tied=True).eval(), random_groups(6, 5)
    groups = [group for group in groups if group.has_signal]
    layers = {
        layer: (rule, {"weight": "head"} if layer is model.lm_head else names)
        for layer, (rule, names) in known_layers(model, list(model.named_parameters())).items()
    }
    shapes = {name: p.shape for name, p in model.named_parameters()}
    sink = ExactGramian(len(groups), shapes | {"head": model.lm_head.weight.shape})
    watch = Watch(model, layers, sink)
    with watch.attached():
        hooked_pass(CausalLMPolicy(model), watch, sink, PassSize(), 0, groups)
    assert error(sink.gramian(), oracle(model, groups)) > 1e-2
    assert same(model, groups)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("limit", [1e12, 0], ids=["exact", "sketched"])
def test_under_checkpointing(tiny_lm, reentrant, limit):
    model, groups = tiny_lm().eval(), random_groups(6, 5)
    want, whole = oracle(model, groups), engine(model, memory_limit=limit).gramian(groups, (0,))
    enable = getattr(model, "activation_checkpointing_enable", None)
    (enable or model.gradient_checkpointing_enable)({"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()

    class Checkpointing(CausalLMPolicy):
        def log_probs(self, *tokens):
            for module in model.modules():  # the layers alone, as a policy of the guard does
                module.training = bool(module.__dict__.get("gradient_checkpointing"))
            return super().log_probs(*tokens)

    if not reentrant:
        got = engine(model, policy=Checkpointing, memory_limit=limit).gramian(groups, (0,))
        assert error(got, whole) < 1e-5
        return
    with pytest.raises(UnsupportedModelError, match="re-entrant"):
        engine(model, policy=Checkpointing).gramian(groups, (0,))
    auto = engine(model, "auto", policy=Checkpointing)
    assert error(auto.gramian(groups, (0,)), want) < 1e-5
    assert auto.said == "one backward per prompt, because gradient checkpointing is re-entrant"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("at_once", [7, None])
def test_log_probs_are_to_the_last_bit_those_of_scoring(tiny_lm, dtype, at_once):
    model = tiny_lm().eval().to(dtype)
    groups = random_groups(6, 5) + random_groups(4, 4, seed=1)
    taken = engine(model, passes=PassSize(at_once)).take(groups, (0,))
    scores = score(CausalLMPolicy(model), groups, PassSize(at_once))
    # Those that are always right have packs of their own.
    want = [s if group.has_signal else None for group, s in zip(groups, scores, strict=True)]
    assert [s is None for s in taken.scores] == [s is None for s in want]
    assert any(s is None for s in want)
    for got, expected in zip(taken.scores, want, strict=True):
        assert got is expected is None or torch.equal(got, expected)


@pytest.mark.parametrize("limit", [1e12, 0], ids=["exact", "sketched"])
@pytest.mark.parametrize("how", ["weights", "autocast"])
def test_in_half_precision(tiny_lm, how, limit):
    class Autocast(CausalLMPolicy):
        def log_probs(self, *tokens):
            with torch.autocast("cpu", torch.bfloat16):
                return super().log_probs(*tokens)

    groups = random_groups(8, 6)
    want = oracle(tiny_lm().eval(), groups)
    model = tiny_lm().eval()
    model = model.bfloat16() if how == "weights" else model
    policy = CausalLMPolicy if how == "weights" else Autocast
    watched = engine(model, policy=policy, memory_limit=limit)
    got = watched.gramian(groups, (0,))
    assert not watched._unknown  # rounding is no difference
    assert float((got * want).sum() / (got.norm() * want.norm())) > 0.99
    assert got.dtype == torch.float64


@pytest.mark.parametrize("at_once", [64, 10**9])
def test_a_head_that_is_called_token_by_token(tiny_lm, at_once):
    class InPieces(CausalLMPolicy):
        def log_probs(self, *tokens):
            return token_log_probs(self.model, *tokens, logits_at_once=at_once)

    model = tiny_lm(tied=True).eval()
    groups = random_groups(6, 5)
    taken = engine(model, policy=InPieces)
    assert error(taken.gramian(groups, (0,)), oracle(model, groups)) < 1e-5
    assert not taken._unknown


def test_nothing_is_left_behind(tiny_lm):
    model = tiny_lm().eval()
    first, second, *others = model.parameters()
    first.grad = torch.ones_like(first)
    calls = []
    second.register_post_accumulate_grad_hook(calls.append)
    model.lm_head.register_forward_hook(lambda *_: None)
    watched = engine(model)
    groups = random_groups(6, 5)
    watched.gramian(groups, (0,))  # compares with autograd, once
    calls.clear()
    hooks = [dict(m._forward_hooks) for m in model.modules()]
    state = torch.get_rng_state()
    watched.gramian(groups, (1,))
    engine(model, memory_limit=0).gramian(groups, (1,))
    assert torch.equal(first.grad, torch.ones_like(first))
    assert all(p.grad is None and p.requires_grad for p in (second, *others))
    assert calls == []
    assert [dict(m._forward_hooks) for m in model.modules()] == hooks
    assert not any(m._forward_hooks_with_kwargs for m in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("limit", [1e12, 0], ids=["exact", "sketched"])
def test_probes_between_micro_batches_leave_training_bit_identical(tiny_lm, limit):
    groups = random_groups(6, 5)

    def trained(guarded):
        model = tiny_lm().train()
        watched = engine(model, memory_limit=limit)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        torch.manual_seed(1)
        for part in range(8):
            scores = CausalLMPolicy(model).log_probs(*groups[part % 6].tokens)  # dropout is on
            scores.sum().backward()
            if guarded:
                with isolated(model, seed=part):
                    assert watched.gramian(groups, (part,)).any()
            if part % 2:
                optimizer.step()
                optimizer.zero_grad()
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(trained(False), trained(True))


def test_an_error_within_leaves_no_hook(tiny_lm):
    model = tiny_lm().eval()
    with torch.no_grad():
        model.lm_head.weight[:] = float("nan")
    watched = engine(model)
    watched._unknown = frozenset()
    with pytest.raises(FloatingPointError, match="not finite on row 0"):
        watched.gramian(random_groups(4, 4), (0,))
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("name", ["hooks", "backward"])
def test_no_signal_costs_nothing(tiny_lm, name):
    class Untouchable(CausalLMPolicy):
        def log_probs(self, *tokens):
            raise AssertionError("scored a prompt without signal")

    groups = random_groups(4, 4)
    for group in groups:
        group.success[:] = 0.0
    taken = engine(tiny_lm(), name, policy=Untouchable)
    assert not taken.gramian(groups, (0,)).any()
    assert name == "backward" or taken.take(groups, (0,)).scores == [None] * 4


@pytest.mark.parametrize("wanted", [r"mlp", r"layers\.1\.", "norm", lambda n, _: "embed" in n])
def test_subsets_of_parameters(tiny_lm, wanted):
    model, groups = tiny_lm().eval(), random_groups(4, 4)
    both = [engine(model, name, parameters=wanted) for name in ("hooks", "backward")]
    got, want = (one.gramian(groups, (0,)) for one in both)
    assert error(got, want) < 1e-5
    assert not both[0]._unknown


def test_frozen_parameters_and_frozen_beginnings(tiny_lm):
    model, groups = tiny_lm().eval(), random_groups(4, 4)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layers.1" in name)
    got = engine(model).gramian(groups, (0,))
    assert error(got, engine(model, "backward").gramian(groups, (0,))) < 1e-5


@pytest.mark.needs("peft")
def test_adapters_behind_an_embedding_that_was_made_to_require_gradients():
    """As trainers do under checkpointing, where the embedding is frozen."""
    model, groups = architectures.make("lora"), random_groups(6, 5)
    want = oracle(model, groups)
    model.enable_input_require_grads()
    watched = engine(model)
    assert error(watched.gramian(groups, (0,)), want) < 1e-5
    assert not watched._unknown


# What no rule describes -----------------------------------------------------------------------


class Doubled(nn.Linear):
    """A subclass of its own: the input counts twice."""

    def forward(self, x):
        return super().forward(2 * x)


class Scaled(nn.Linear):
    """Called as it is, but what it holds is multiplied elsewhere: it looks like a linear layer."""


class Shifted(nn.Module):
    """A parameter that no layer holds."""

    def __init__(self, inner, width):
        super().__init__()
        self.inner, self.shift = inner, nn.Parameter(0.1 * torch.randn(width))

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs) + self.shift


class TokensFirst(nn.Module):
    """Calls its layer with rollouts in the second dimension."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.transpose(0, 1)).transpose(0, 1)


class Unhooked(nn.Module):
    """Uses its layer's weight without calling it, as fused attention does."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return nn.functional.linear(x, self.inner.weight, self.inner.bias)


def doubled(old):
    new = Doubled(old.in_features, old.out_features, bias=False)
    new.weight = old.weight
    return new


STRANGE = {
    "subclass": doubled,
    "bare parameter": lambda old: Shifted(old, old.out_features),
    "tokens first": TokensFirst,
    "used, not called": Unhooked,
}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_no_rule_describes_is_left_to_autograd_and_said(tiny_lm, kind):
    model, groups = tiny_lm().eval(), random_groups(6, 5)
    parent = model.model.layers[0].self_attn
    torch.manual_seed(0)
    parent.o_proj = STRANGE[kind](parent.o_proj)
    want = engine(model, "backward").gramian(groups, (0,))
    watched, auto = engine(model), engine(model, "auto")
    assert error(watched.gramian(groups, (0,)), want) < 1e-5
    (unknown,) = watched._unknown
    assert "o_proj" in unknown
    assert "of the parameters by autograd" in watched.said
    assert error(auto.gramian(groups, (0,)), want) < 1e-5
    taken = watched.take(groups, (0,))
    assert taken.scores is None  # prompt by prompt, scores would round in another way
    # Had nobody compared, it would be wrong.
    blind = engine(model)
    blind._unknown, blind._compared = frozenset(), watched._compared
    if kind != "tokens first":
        assert error(blind.gramian(groups, (0,)), want) > 1e-3


def test_a_layer_that_shows_its_ways_later_is_left_to_autograd_then(tiny_lm):
    model, groups = tiny_lm().eval(), random_groups(6, 5)
    parent = model.model.layers[0].self_attn
    watched = engine(model)
    assert watched.compare([g for g in groups if g.has_signal]) == 0
    parent.o_proj = TokensFirst(parent.o_proj)
    want = engine(model, "backward").gramian(groups, (0,))
    assert error(watched.gramian(groups, (0,)), want) < 1e-5
    assert any("o_proj" in name for name in watched._unknown)


def test_where_little_is_known_the_other_engine_takes_over(tiny_lm):
    model, groups = tiny_lm().eval(), random_groups(6, 5)
    for layer in model.model.layers:
        for name, child in layer.self_attn.named_children():
            if isinstance(child, nn.Linear):
                setattr(layer.self_attn, name, doubled(child))
        layer.mlp = nn.Sequential(Doubled(32, 48, bias=False), Doubled(48, 32, bias=False))
    auto = engine(model, "auto")
    want = engine(model, "backward").gramian(groups, (0,))
    assert torch.equal(auto.gramian(groups, (0,)), want)
    assert "% of the parameters are in layers that are not known" in auto.said


@pytest.mark.long
def test_a_compiled_model_is_left_to_the_other_engine(tiny_lm):
    compiled = torch.compile(tiny_lm().eval(), backend="aot_eager", dynamic=True)
    with pytest.raises(UnsupportedModelError, match="compiled"):
        engine(compiled)
    assert "because the model is compiled" in engine(compiled, "auto").said


def test_a_metric_and_a_policy_without_a_module_are_left_to_the_other_engine(tiny_lm):
    class NoModule:
        def __init__(self, model):
            self.parameters = model.named_parameters

    assert "metric" in engine(tiny_lm(), "auto", metric=lambda _: {}).said
    assert "no model attribute" in engine(tiny_lm(), "auto", policy=NoModule).said
    with pytest.raises(UnsupportedModelError, match="no model attribute"):
        engine(tiny_lm(), policy=NoModule)


# Sketches -------------------------------------------------------------------------------------


def with_signal(groups):
    return [group for group in groups if group.has_signal]


def cosines(gramian):
    scale = gramian.diagonal().sqrt()
    return (gramian / torch.outer(scale, scale))[~torch.eye(len(gramian), dtype=torch.bool)]


def test_a_sketch_grows_until_it_is_sure_enough(tiny_lm, monkeypatch):
    model, groups = tiny_lm(tied=True).eval(), with_signal(random_groups(12, 6))
    want = oracle(model, groups)
    needed = 4 * len(groups) * sum(p.numel() for p in model.parameters())
    watched = engine(model, memory_limit=needed - 1)
    seen = []
    for seed in range(6):
        got = watched.gramian(groups, (seed,))
        seen.append(float((cosines(got) - cosines(want)).square().mean().sqrt()))
    assert watched._size > hooks_module._SIZE
    assert sum(seen) / len(seen) * 2**0.5 < 0.025
    assert "sketched, error of a cosine 0.0" in watched.said
    monkeypatch.setattr(hooks_module, "_ALWAYS", hooks_module._SIZE)
    small = engine(model, memory_limit=0)  # no room to grow
    small.gramian(groups, (0,))
    assert small._size == hooks_module._SIZE
    assert small.error > 1.5 * watched.error


@pytest.mark.parametrize("size", [8, 24])
def test_a_sketch_knows_its_own_error(tiny_lm, size, monkeypatch):
    monkeypatch.setattr(HookEngine, "_grow", lambda *_: False)
    model, groups = tiny_lm().eval(), with_signal(random_groups(12, 6))
    want, watched = oracle(model, groups), engine(model, memory_limit=0)
    watched._size = size
    true, said, total = [], [], 0
    for seed in range(30):
        got = watched.gramian(groups, (seed,))
        scale = want.diagonal().sqrt()
        off = ((got - want) / torch.outer(scale, scale))[~torch.eye(len(want), dtype=torch.bool)]
        true.append(float(off.square().mean()))
        said.append(watched.error**2)
        total = total + off
    assert sum(said) / sum(true) == pytest.approx(1, abs=0.3)
    mean = total / 30  # unbiased: what is left is a 30th of the variance
    assert float(mean.square().mean()) < 2 * sum(true) / 30 / 30
