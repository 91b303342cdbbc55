"""Probes sample from the softmax that they score, whatever generation is set to."""

from extras import needs

needs("trl", "peft")

import pytest
import torch
from peft import LoraConfig
from transformers import GenerationConfig
from trl import GRPOConfig
from trl_runs import GUARD, held_out, make_trainer

from passk_guard import HFPolicy
from passk_guard.integrations.trl import PassKGuardCallback
from passk_guard.rollouts.plain_sampling import CARRIED, filters, plain_config
from passk_guard.runtime.isolation import isolated

PROMPT = "1 2 ="
ATTRIBUTES = [name for name in vars(GenerationConfig()) if not name.startswith("_")]
N = 3000

# One of each kind of processor, warper and search that shows at the first token.
FILTERS = {
    "typical_p with suppress_tokens": {"typical_p": 0.3, "suppress_tokens": [5, 6, 7]},
    "top_k": {"top_k": 3},
    "top_p": {"top_p": 0.5},
    "min_p": {"min_p": 0.5},
    "top_h": {"top_h": 0.3},
    "epsilon_cutoff": {"epsilon_cutoff": 0.04},
    "eta_cutoff": {"eta_cutoff": 0.04},
    "repetition_penalty": {"repetition_penalty": 3.0},
    "encoder_repetition_penalty": {"encoder_repetition_penalty": 0.3},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 1},
    "encoder_no_repeat_ngram_size": {"encoder_no_repeat_ngram_size": 1},
    "bad_words_ids": {"bad_words_ids": [[5], [6]]},
    "sequence_bias": {"sequence_bias": [[[5], 3.0]]},
    "begin_suppress_tokens": {"begin_suppress_tokens": [5, 6, 7]},
    "forced_eos_token_id": {"forced_eos_token_id": 4},
    "min_new_tokens": {"min_new_tokens": 2},
    "min_length": {"min_length": 5},
    "guidance_scale": {"guidance_scale": 3.0},
    "watermarking_config": {"watermarking_config": {"bias": 5.0, "greenlist_ratio": 0.5}},
    "num_beams": {"num_beams": 2},
    "temperature": {"temperature": 0.3},
    "do_sample": {"do_sample": False},
}
FILTERS = {name: f for name, f in FILTERS.items() if set(f) <= set(ATTRIBUTES)}


def peaked(tmp_path, generation_kwargs=None, **config):
    """A trainer of a policy that is far from uniform, so that filters matter."""
    config = {"max_completion_length": 2, "temperature": 0.9, "top_k": 0, **config}
    trainer = make_trainer(tmp_path, generation_kwargs=generation_kwargs, **config)
    with torch.no_grad():
        trainer.model.get_output_embeddings().weight.mul_(12)
    return trainer


def guarded(trainer):
    return PassKGuardCallback(trainer, prompts=held_out(16), **GUARD).guard.policy


def first_tokens(policy, trainer, n=N):
    row = {"prompt": PROMPT, "answer": "03"}
    context = (
        isolated(trainer.model, seed=0) if isinstance(policy, HFPolicy) else policy.isolated(0)
    )
    with context:
        (group,) = policy.generate([row], [0], n)
    return group.input_ids[:, len(PROMPT.split())]


def raw_first_tokens(trainer):
    """As the trainer samples."""
    ids = trainer.processing_class(PROMPT, return_tensors="pt")["input_ids"].repeat(N, 1)
    torch.manual_seed(0)
    mask = torch.ones_like(ids)
    config = trainer.generation_config
    return trainer.model.generate(ids, attention_mask=mask, generation_config=config)[
        :, ids.shape[1]
    ]


def p_value(trainer, tokens):
    """Of Pearson's χ² test that these are draws from the softmax at temperature .9."""
    trainer.model.eval()
    ids = trainer.processing_class(PROMPT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = (trainer.model(ids).logits[0, -1].double() / 0.9).softmax(-1) * len(tokens)
    seen = torch.bincount(tokens, minlength=len(expected)).double()
    rare = expected < 5
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    seen = torch.cat([seen[~rare], seen[rare].sum()[None]])
    assert len(expected) > 8  # there is something to get wrong
    x = ((seen - expected) ** 2 / expected.clamp(min=1e-9)).sum()
    half = torch.tensor((len(expected) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(half, x / 2))


# TRL sets these itself, so the model's are not used.
TRL_SETS = {"temperature", "top_k", "top_p", "min_p", "repetition_penalty", "do_sample"}
CASES = [(name, "trainer") for name in FILTERS]
CASES += [(name, "model") for name, given in FILTERS.items() if not TRL_SETS & set(given)]


@pytest.mark.parametrize(("name", "where"), CASES)
def test_first_tokens_are_draws_from_the_softmax(tmp_path, name, where):
    """χ² over one prompt's first tokens; the trainer's own sampling fails the same test."""
    given = FILTERS[name]
    length = {"max_completion_length": 1 if "forced_eos_token_id" in given else 2}
    if where == "trainer":
        trainer = peaked(tmp_path, given, **length)
    else:  # as a hub's generation_config.json has it: transformers fills gaps from there
        trainer = peaked(tmp_path, **length)
        trainer.model.generation_config.update(**given)
        policy = HFPolicy(trainer.model, trainer.processing_class, temperature=0.9, **length)
        assert p_value(trainer, first_tokens(policy, trainer)) > 1e-3
    assert p_value(trainer, raw_first_tokens(trainer)) < 1e-6
    assert p_value(trainer, first_tokens(guarded(trainer), trainer)) > 1e-3


CONTINUOUS = "use_transformers_continuous_batching"


@pytest.mark.skipif(CONTINUOUS not in GRPOConfig.__dataclass_fields__, reason="not in this trl")
@pytest.mark.parametrize("given", [{"top_k": 3}, {"top_p": 0.5}, {"temperature": 0.3}])
def test_continuous_batching_is_plain_in_probes_too(tmp_path, given):
    blocks = {"num_blocks": 64, "max_batch_tokens": 512, "page_size": 32}
    more = {CONTINUOUS: True, "transformers_continuous_batching_config": blocks}
    trainer = peaked(tmp_path, given, **more)
    assert p_value(trainer, raw_first_tokens(trainer)) < 1e-6
    policy = PassKGuardCallback(trainer, prompts=held_out(16), **GUARD, temperature=0.9)
    tokens = first_tokens(policy.guard.policy, trainer, 1000)
    assert p_value(trainer, tokens) > 1e-3
    assert p_value(trainer, continuous_tokens(trainer, 1000)) < 1e-6
    greedy = {int(t) for t in first_tokens(ServedAt(policy.guard.policy, 0.0), trainer, 16)}
    assert greedy == {int(tokens.bincount().argmax())}


def continuous_tokens(trainer, n):
    """As the trainer samples, by continuous batching."""
    ids = trainer.processing_class(PROMPT)["input_ids"]
    torch.manual_seed(0)
    found = trainer.model.generate_batch(
        [ids] * n,
        generation_config=trainer.generation_config,
        continuous_batching_config=trainer.continuous_batching_config,
        progress_bar=False,
    )
    return torch.tensor([one.generated_tokens[0] for one in found.values()])


class ServedAt:
    """A policy at another temperature."""

    def __init__(self, policy, temperature):
        self.isolated, self._policy, self._temperature = policy.isolated, policy, temperature

    def generate(self, rows, row_ids, n):
        return self._policy.generate(rows, row_ids, n, self._temperature)


def test_the_models_own_filters_are_out_of_the_way_under_an_adapter(tmp_path):
    trainer = peaked(tmp_path, parts={"peft_config": LoraConfig(r=2, task_type="CAUSAL_LM")})
    base = trainer.model.get_base_model()
    base.generation_config.suppress_tokens = [5, 6, 7]
    own, attributes = base.generation_config, set(vars(trainer.model))
    assert p_value(trainer, raw_first_tokens(trainer)) < 1e-6
    assert p_value(trainer, first_tokens(guarded(trainer), trainer)) > 1e-3
    assert base.generation_config is own
    assert own.suppress_tokens == [5, 6, 7]
    assert set(vars(trainer.model)) == attributes


# Values that a run can have, of what a probe takes over.
TAKEN_OVER = {
    "max_new_tokens": 1,
    "max_length": 12,
    "eos_token_id": [3],
    "bos_token_id": 5,
    "pad_token_id": 0,
    "use_cache": False,
    "cache_implementation": "static",
    "prefill_chunk_size": 2,
    "disable_compile": True,
}


@pytest.fixture(scope="module")
def sampler(tmp_path_factory):
    trainer = peaked(tmp_path_factory.mktemp("run"), max_completion_length=3)
    return trainer, guarded(trainer)


@pytest.mark.parametrize("name", [n for n in ATTRIBUTES if n in TAKEN_OVER or n not in CARRIED])
def test_no_attribute_of_the_installed_config_changes_what_is_sampled(sampler, name, monkeypatch):
    """Each one set to something else, known or not: the same rollouts, token by token."""
    trainer, policy = sampler
    plain = first_tokens(policy, trainer, 40)
    value = TAKEN_OVER.get(name, object())  # what is not taken over is not looked at
    monkeypatch.setattr(trainer.generation_config, name, value)
    assert torch.equal(plain, first_tokens(policy, trainer, 40))
    if name not in CARRIED:
        monkeypatch.undo()
        for config in (trainer.model.generation_config, trainer.generation_config):
            own = plain_config(config, 0.9, CARRIED).to_dict()
            monkeypatch.setattr(config, name, value)
            assert plain_config(config, 0.9, CARRIED).to_dict() == own
            monkeypatch.undo()


def test_what_is_taken_over_is_in_the_config_that_is_sampled_with():
    own = GenerationConfig(**TAKEN_OVER, top_k=7, typical_p=0.2)
    plain = plain_config(own, 0.5, CARRIED)
    assert {name: getattr(plain, name) for name in TAKEN_OVER} == TAKEN_OVER
    assert (plain.top_k, plain.top_p, plain.temperature, plain.do_sample) == (0, 1.0, 0.5, True)
    assert plain.typical_p in (None, 1.0)
    assert plain_config(own, 0).do_sample is False
    assert plain_config(own, 0.5).max_new_tokens is None


def test_filters_of_the_training_are_told_once(tmp_path, caplog):
    caplog.set_level("INFO")
    guarded(make_trainer(tmp_path))
    assert "training samples with" not in caplog.text
    trainer = make_trainer(tmp_path, top_k=7, generation_kwargs={"typical_p": 0.3})
    trainer.model.generation_config.suppress_tokens = [5]
    guarded(trainer)
    assert caplog.text.count("training samples with") == 1
    told = caplog.text.split("training samples with ")[1].split(";")[0]
    assert set(told.split(", ")) == {"top_k=7", "typical_p=0.3", "suppress_tokens=[5]"}


def test_placeholders_for_images_stay_suppressed(tmp_path, caplog):
    """TRL suppresses them where a model has some: an answer with one would have no image."""
    caplog.set_level("INFO")
    trainer = peaked(tmp_path, {"suppress_tokens": [5, 6]})
    trainer.model.config.image_token_id = 5
    sampled = first_tokens(guarded(trainer), trainer).tolist()
    assert 5 not in sampled
    assert 6 in sampled
    assert "suppress_tokens=[5, 6]" in caplog.text
    caplog.clear()
    trainer.generation_config.suppress_tokens = [5]
    guarded(trainer)
    assert "training samples with" not in caplog.text


def test_a_new_config_has_no_filters():
    own = GenerationConfig(top_k=0, do_sample=True)
    assert filters(own, GenerationConfig()) == {}
    assert filters(own, GenerationConfig(typical_p=0.2)) == {"typical_p": 0.2}
    assert filters(GenerationConfig(top_k=0, do_sample=True, num_beams=2)) == {"num_beams": 2}


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"top_p": 0.9}, "top_p=0.9"),
        ({"top_k": 5}, "top_k=5"),
        ({"generation_kwargs": {"min_tokens": 3}}, "min_tokens=3"),
        ({"generation_kwargs": {"bad_words": ["no"]}}, "bad_words="),
        ({"generation_kwargs": {"logit_bias": {5: 2.0}}}, "logit_bias="),
        ({"generation_kwargs": {"temperature": 0.5}}, "temperature=0.5"),
        ({"generation_kwargs": {"seed": 1}}, "seed=1"),
        ({"vllm_structured_outputs_regex": "a+"}, "vllm_structured_outputs_regex"),
    ],
)
def test_what_vllm_samples_with_is_refused_before_training(tmp_path, config, named):
    trainer = make_trainer(tmp_path)
    trainer.use_vllm = True  # none is installed where tests run; only the check is
    for name, value in config.items():
        setattr(trainer.args, name, value)
        setattr(trainer, name, value)
    with pytest.raises(ValueError, match=f"vLLM samples with .* Here: {named}"):
        guarded(trainer)


def test_vllm_settings_that_leave_the_distribution_alone_are_taken(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.use_vllm = True
    trainer.args.generation_kwargs = {"stop": ["\n"], "top_k": -1, "temperature": 1.0}
    guarded(trainer)
