"""The Gramian that a GPU finds, against float64 on the CPU, and what of the fast paths it takes."""

from extras import needs

needs("transformers")

import copy
from contextlib import nullcontext

import pytest
import torch
from gpu_lane import DEVICE, REHEARSAL, has_bf16
from tiny import CausalLMPolicy, random_groups, tiny_llama
from transformers import LlamaConfig, LlamaForCausalLM

from passk_guard.gradients import ENGINES, EngineSettings
from passk_guard.rollouts import token_log_probs as scoring

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

PROMPTS, N = 12, 8
ENGINE_NAMES = ["backward", "hooks"]


class There(CausalLMPolicy):
    """Takes rollouts to its model, in a precision, in pieces through the head where asked for."""

    def __init__(self, model, autocast=None, pieces=False):
        super().__init__(model)
        self._autocast, self._at_once = autocast, 256 if pieces else 2**25

    def log_probs(self, *tokens):
        tokens = [part.to(self.model.device) for part in tokens]
        kind = self.model.device.type
        with torch.autocast(kind, self._autocast) if self._autocast else nullcontext():
            return scoring.token_log_probs(self.model, *tokens, logits_at_once=self._at_once)


@pytest.fixture(scope="module")
def model():
    """Wide enough that matrices are multiplied in tiles, and that sketches reduce anything."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config).eval()


def taken(policy, engine, limit):
    made = ENGINES.make(engine, policy, EngineSettings(memory_limit=limit, prompts=PROMPTS))
    return made.gramian(random_groups(PROMPTS, N), (0,)), made


@pytest.fixture(scope="module")
def truth(model):
    return taken(There(copy.deepcopy(model).double()), "backward", 1e15)[0]


def worst(got, want):
    """The largest error of a cosine between two prompts."""
    norms = want.diagonal().clamp(min=1e-300).sqrt()
    error = ((got - want) / torch.outer(norms, norms)).fill_diagonal_(0.0)
    has_signal = want.diagonal() > 0
    return float(error[has_signal][:, has_signal].abs().max())


@pytest.fixture
def tf32():
    before = torch.backends.cuda.matmul.allow_tf32
    yield lambda on: setattr(torch.backends.cuda.matmul, "allow_tf32", on)
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("fast", [False, True], ids=["TF32 off", "TF32 on"])
@pytest.mark.parametrize("engine", ENGINE_NAMES)
def test_exact(model, truth, tf32, engine, fast):
    tf32(fast)
    got, made = taken(There(copy.deepcopy(model).to(DEVICE)), engine, 1e15)
    assert worst(got, truth) < (0.01 if fast else 1e-4)
    assert made.said in (
        "one backward per prompt",
        "watched layers, many prompts per backward, exact",  # nothing left to autograd
    )


@pytest.mark.parametrize("fast", [False, True], ids=["TF32 off", "TF32 on"])
@pytest.mark.parametrize("engine", ENGINE_NAMES)
def test_sketched(model, truth, tf32, engine, fast):
    """Within what the sketch itself says of its error, or is known of it."""
    tf32(fast)
    got, made = taken(There(copy.deepcopy(model).to(DEVICE)), engine, 0)
    error = made.error if engine == "hooks" else 0.011
    assert 0 < error < 0.1
    assert 1e-5 < worst(got, truth) < 5 * error + 0.01


@pytest.mark.parametrize("engine", ENGINE_NAMES)
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_autocast(model, truth, engine, half):
    """No GradScaler stands before a probe: what it sums is large enough for float16."""
    if half is torch.bfloat16 and not has_bf16():
        pytest.skip("this GPU does not compute in bfloat16")
    got, made = taken(There(copy.deepcopy(model).to(DEVICE), half), engine, 1e15)
    assert worst(got, truth) < 0.05
    assert "autograd" not in made.said


@pytest.mark.parametrize("half", [None, torch.bfloat16], ids=["float32", "bf16"])
def test_the_head_is_called_in_pieces(model, truth, half):
    """Its last position alone gives the logits of the whole: else memory would be taken unsaid."""
    there = copy.deepcopy(model).to(DEVICE)
    got, _ = taken(There(there, half, pieces=True), "hooks", 1e15)
    assert there.lm_head not in scoring._plain_only
    assert worst(got, truth) < (0.05 if half else 0.01)


def test_another_model_is_told_apart(model, truth):
    """The negative control of all of the above."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.lm_head.weight.mul_(1.5)
    assert worst(taken(There(other.to(DEVICE)), "hooks", 1e15)[0], truth) > 0.05


def test_same_signs_whatever_computes_them(model):
    """A sketch is the same each time on one device: generators there do not depend on luck."""
    first, again = (taken(There(copy.deepcopy(model).to(DEVICE)), "hooks", 0)[0] for _ in range(2))
    assert torch.allclose(first, again, rtol=1e-3, atol=1e-3 * float(first.diagonal().max()))


@pytest.mark.skipif(REHEARSAL, reason="there is memory to count on a GPU only")
def test_a_probe_keeps_no_memory():
    there = tiny_llama().eval().to(DEVICE)
    taken(There(there), "hooks", 0)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    taken(There(there), "hooks", 0)
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() <= before
