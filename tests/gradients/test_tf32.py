"""Where a GPU multiplies matrices with ten bits of each entry (TF32), layers are still known.

Their gradients and autograd's are then rounded in different ways. The rounding is done here by
hand, so that any machine can tell; what a GPU really does is in tests/gpu.
"""

import torch
from tiny import CausalLMPolicy, random_groups, tiny_torch_lm
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from passk_guard.gradients import EngineSettings, HookEngine, known_parameters

_aten = torch.ops.aten
# The first factor, among the arguments; the second one follows.
PRODUCTS = {_aten.mm.default: 0, _aten.bmm.default: 0, _aten.addmm.default: 1}
PRODUCTS |= {_aten.baddbmm.default: 1, _aten.addmm_.default: 1}


class TF32(TorchDispatchMode):
    """Rounds the factors of each product, to the nearest, ties to even."""

    def __init__(self):
        super().__init__()
        self.rounded = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if (first := PRODUCTS.get(func)) is not None and args[first].dtype == torch.float32:
            self.rounded += 1
            factors = (rounded(factor) for factor in args[first : first + 2])
            args = (*args[:first], *factors, *args[first + 2 :])
        return func(*args, **(kwargs or {}))


def rounded(values):
    bits = values.contiguous().view(torch.int32)
    return ((bits + 0xFFF + (bits >> 13 & 1)) & ~0x1FFF).view(torch.float32)


def deep(layers=32):
    torch.manual_seed(0)
    model = tiny_torch_lm()
    kind = type(model.model.layers[0])
    model.model.layers = nn.ModuleList([kind(32, 48, 4, 0.0) for _ in range(layers)])
    return model.eval()


def compared(model, monkeypatch):
    """The share of unknown parameters, and the largest difference in units of what may differ."""
    found, differ = [], known_parameters._differ

    def noted(got, want, whole, slack):
        allowed = slack * (float(want.norm()) + 0.1 * whole)
        found.append(float((got - want).norm()) / allowed)
        return differ(got, want, whole, slack)

    monkeypatch.setattr(known_parameters, "_differ", noted)
    engine = HookEngine(CausalLMPolicy(model), EngineSettings(memory_limit=1e15, prompts=4))
    unknown = engine.compare([g for g in random_groups(8, 8) if g.has_signal])
    return unknown, max(found)


def test_no_layer_is_given_up(monkeypatch):
    model = deep()
    _, exact = compared(model, monkeypatch)
    with TF32() as mode:
        unknown, worst = compared(model, monkeypatch)
    assert mode.rounded > 32
    assert unknown == 0
    assert 10 * exact < worst < 0.5  # seen, and far from what is let pass


def test_a_layer_that_is_not_what_it_seems_is_seen_through_the_rounding(monkeypatch):
    model = deep(4)
    layer = model.model.layers[1].self_attn.o_proj
    layer.forward = lambda x: nn.functional.linear(1.05 * x, layer.weight)
    with TF32():
        unknown, worst = compared(model, monkeypatch)
    assert worst > 1
    assert unknown == layer.weight.numel() / sum(p.numel() for p in model.parameters())
