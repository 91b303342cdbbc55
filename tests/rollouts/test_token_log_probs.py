"""Log-probabilities in pieces: the numbers and gradients of the plain way, without its memory."""

from extras import needs

needs("transformers", "peft")

import pytest
import torch
from peak_memory import peak_memory
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
)

from passk_guard.rollouts.token_log_probs import LOGITS_AT_ONCE, token_log_probs
from passk_guard.runtime.isolation import checkpointing_without_dropout

VOCABULARY = 2**10
ROLLOUTS, LENGTH = 26, 16
PIECE = 100  # tokens; 416 in all
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


def make_model(config_class=LlamaConfig, **settings):
    torch.manual_seed(0)
    settings = {"tie_word_embeddings": False, **SIZES, **settings}
    model = AutoModelForCausalLM.from_config(config_class(**settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(10)  # far from uniform
    return model


def tokens(padding="right"):
    rng = torch.Generator().manual_seed(1)
    ids = torch.randint(1, VOCABULARY, (ROLLOUTS, LENGTH), generator=rng)
    used = torch.randint(13, LENGTH + 1, (ROLLOUTS, 1), generator=rng)
    place = torch.arange(LENGTH).expand(ROLLOUTS, -1)
    if padding == "left":
        place = place.flip(1)
    attention = (place < used).long()
    completion = attention.clone()
    completion[:, : LENGTH - 11 if padding == "left" else 3] = 0
    return ids * attention, attention, completion


def plain(model, input_ids, attention_mask, completion_mask, temperature=1.0):
    """All logits at once."""
    positions = (attention_mask.cumsum(-1) - 1).clamp(min=0)
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    if not attention_mask[:, 0].all():
        inputs["position_ids"] = positions
    logits = model(**inputs).logits[:, -input_ids.shape[1] :].float() / temperature
    scores = logits[:, :-1].log_softmax(-1).gather(-1, input_ids[:, 1:, None])[..., 0]
    return torch.nn.functional.pad(scores, (1, 0)) * completion_mask


def in_pieces(*args, **kwargs):
    return token_log_probs(*args, **kwargs, logits_at_once=PIECE * VOCABULARY)


def head_calls(model, work):
    """What ``work`` gives, and the number of tokens in each call of the head."""
    sizes = []
    head = model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _, args, out: sizes.append(out[..., 0].numel()))
    result = work()
    handle.remove()
    return result, sizes


def gradients(model, scores):
    weights = torch.randn(scores.shape, generator=torch.Generator().manual_seed(2))
    model.zero_grad()
    (scores * weights.to(scores)).sum().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(model, pieces, padding="right", temperature=1.0, rtol=1e-4):
    """The same numbers and gradients as the plain way; whether in pieces is as said."""
    given = tokens(padding)
    want = plain(model, *given, temperature)
    want_gradients = gradients(model, want)
    with checkpointing_without_dropout(model):
        got, sizes = head_calls(model, lambda: in_pieces(model, *given, temperature))
        got_gradients = gradients(model, got)
    assert (max(sizes) == PIECE and len(sizes) > 3) == pieces
    torch.testing.assert_close(got, want.to(got), rtol=rtol, atol=rtol)
    assert got_gradients.keys() == want_gradients.keys()
    for name, value in want_gradients.items():
        error = (got_gradients[name] - value).norm() / (value.norm() + 1e-12)
        assert error < rtol or value.norm() < 1e-6, name
    with torch.no_grad():
        silent, sizes = head_calls(model, lambda: in_pieces(model, *given, temperature))
    assert (max(sizes) == PIECE and len(sizes) > 3) == pieces
    torch.testing.assert_close(silent, got.detach(), rtol=rtol, atol=rtol)
    assert not model.get_output_embeddings()._forward_pre_hooks


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("checkpointing", [None, "plain", "reentrant"])
@pytest.mark.parametrize("padding", ["right", "left"])
def test_pieces_give_the_same_numbers_and_gradients(tied, checkpointing, padding):
    model = make_model(tie_word_embeddings=tied)
    if checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", None)
        enable = enable or model.gradient_checkpointing_enable
        enable({"use_reentrant": checkpointing == "reentrant"})
        if checkpointing == "reentrant":
            model.enable_input_require_grads()
    assert_same(model, True, padding, temperature=0.7)


ADAPTERS = {
    "LoRA": lambda: LoraConfig(r=4, lora_dropout=0.1, task_type="CAUSAL_LM"),
    "LoRA on the head": lambda: LoraConfig(
        r=4, task_type="CAUSAL_LM", target_modules=["lm_head", "q_proj"]
    ),
    "a trained head": lambda: LoraConfig(
        r=4, task_type="CAUSAL_LM", modules_to_save=["lm_head"], target_modules=["q_proj"]
    ),
    "prompt tuning": lambda: PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_adapters(adapter):
    model = get_peft_model(make_model(), ADAPTERS[adapter]()).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(4))
    assert_same(model, True)


@pytest.mark.parametrize(
    ("config_class", "settings", "pieces"),
    [
        (Gemma2Config, {"final_logit_softcapping": 5.0}, False),
        (Gemma2Config, {"final_logit_softcapping": None}, True),
        (CohereConfig, {"logit_scale": 0.5}, False),
        (CohereConfig, {"logit_scale": 1.0}, True),
        (GraniteConfig, {"logits_scaling": 8.0}, False),
    ],
)
def test_what_a_model_does_to_its_logits_is_kept(config_class, settings, pieces):
    model = make_model(config_class, **settings)
    assert_same(model, pieces)
    assert_same(model, pieces)  # the verdict on the head is remembered


def test_a_wrapped_forward_keeps_its_autocast():
    """As accelerate does it: autocast within the model's forward, float32 out of it."""
    model = make_model()
    inner = model.forward

    def forward(*args, **kwargs):
        with torch.autocast("cpu", torch.bfloat16):
            output = inner(*args, **kwargs)
        output.logits = output.logits.float()
        return output

    model.forward = forward
    assert_same(model, True, temperature=0.7, rtol=1e-2)
    exact = make_model()
    given = tokens()
    with torch.no_grad():
        difference = in_pieces(model, *given) - in_pieces(exact, *given)
        ours, theirs = in_pieces(model, *given), plain(model, *given)
    assert difference.abs().max() > 1e-3  # it is bfloat16
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_autocast_around_the_call():
    model, given = make_model(), tokens()
    with torch.autocast("cpu", torch.bfloat16):
        want, got = plain(model, *given), in_pieces(model, *given)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)
    ours, theirs = gradients(model, got), gradients(model, want)
    for name, value in theirs.items():
        assert (ours[name] - value).norm() < 1e-2 * value.norm()


def test_few_logits_take_the_plain_path():
    model, given = make_model(), tokens()
    got, sizes = head_calls(model, lambda: token_log_probs(model, *given))
    assert sizes == [ROLLOUTS * LENGTH]
    assert ROLLOUTS * LENGTH * VOCABULARY < LOGITS_AT_ONCE
    mask = given[2].bool()
    assert torch.equal(got[mask], plain(model, *given)[mask])


def test_a_model_that_is_only_a_function_is_scored():
    model = make_model()

    class Wrapper:
        def __call__(self, **inputs):
            return model(**inputs)

    given = tokens()
    with torch.no_grad():
        got = in_pieces(Wrapper(), *given)
        torch.testing.assert_close(got, in_pieces(model, *given), rtol=1e-4, atol=1e-4)


def test_memory_does_not_grow_with_the_number_of_tokens():
    vocabulary = 8 * VOCABULARY
    model = make_model(vocab_size=vocabulary)
    given = [torch.cat([t] * 5) for t in tokens()]
    all_logits = 4 * given[0].numel() * vocabulary

    def peak(score):
        return peak_memory(lambda: score(model, *given).sum().backward())

    assert peak(plain) > 2 * all_logits
    assert peak(in_pieces) < 0.2 * all_logits
