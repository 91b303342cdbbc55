"""Probes through vLLM in the process sample plainly and cheaply; a wrong engine is named."""

from extras import needs

needs("trl", "vllm")

import pytest
import torch
import vllm_runs  # before whatever else imports vLLM
from trl_runs import make_trainer, train
from vllm_probes import FILTERS, counted, engines_as_made, generated, guarded

from passk_guard.detection.named_states import NamedState
from passk_guard.integrations._trl_vllm import rollouts_at_once
from passk_guard.statistics.inference_mismatch import inference_mismatch

pytestmark = [
    pytest.mark.vllm,
    # vLLM's and torch's own, as an engine is made.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:TRL currently supports vLLM versions"),
]


@pytest.fixture
def make(tmp_path):
    yield lambda **config: vllm_runs.vllm_trainer(tmp_path, **config)
    engines_as_made()


# What a probe samples -----------------------------------------------------------------------------


def test_log_probs_of_the_engine_are_those_of_what_is_scored(make):
    """At the callback's temperature, whatever training samples with."""
    groups, scores = generated(make(sharpness=20.0, **FILTERS), n=64, temperature=1.3)
    first = {
        int(ids[sampled.bool()][0])
        for group in groups
        for ids, sampled in zip(group.input_ids, group.completion_mask, strict=True)
    }
    assert len(first) > 10  # in training three are allowed, and two in reach
    seen = inference_mismatch(groups, scores)
    assert seen.tokens > 900
    assert abs(seen.kl) < 0.1 * seen.bound
    policy = guarded(make(sharpness=20.0)).guard.policy  # scores at 1
    others = [policy.log_probs(*group.tokens).detach() for group in groups]
    assert inference_mismatch(groups, others).surely


@pytest.mark.parametrize(
    "generation_kwargs",
    [
        {"structured_outputs": {"regex": "4"}},
        {"bad_words": ["4", "5"]},
        {"min_tokens": 2, "presence_penalty": 2.0, "frequency_penalty": 2.0},
        {"seed": 1},
        {"temperature": 0.01},
    ],
    ids=lambda kwargs: "-".join(kwargs),
)
def test_further_parameters_of_training_are_not_a_probes(make, generation_kwargs):
    plain, _ = generated(make(sharpness=20.0))
    trainer = make(sharpness=20.0, generation_kwargs=generation_kwargs)
    groups, _ = generated(trainer)
    assert [g.input_ids.tolist() for g in groups] == [g.input_ids.tolist() for g in plain]
    assert trainer.vllm_generation.generation_kwargs == generation_kwargs


def test_what_ends_an_answer_in_training_ends_it_in_a_probe(make):
    trainer = make(sharpness=20.0, generation_kwargs={"stop_token_ids": list(range(32))})
    groups, _ = generated(trainer)
    assert {int(group.completion_mask.sum(-1).max()) for group in groups} == {1}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_pass_at_1_is_that_of_the_models_own_generation(make, tmp_path, temperature):
    """On a model with something to prefer; at 0 answer by answer, at 1 within 2 standard errors."""
    n = 2 if temperature == 0 else 64
    engine, _ = generated(make(sharpness=20.0), n, 64, served=temperature)
    inside = make_trainer(tmp_path, model=vllm_runs.saved_model(vllm_runs.FOLDER, 20.0))
    own, _ = generated(inside, n, 64, served=temperature)
    rates = [torch.tensor([g.correct / g.n for g in groups]) for groups in (engine, own)]
    assert 0.05 < float(rates[0].mean()) < 0.95
    if temperature == 0:
        assert [g.input_ids.tolist() for g in engine] == [g.input_ids.tolist() for g in own]
        return
    variance = sum((r * (1 - r)).sum() / (n - 1) for r in rates) / 64**2
    difference = float(rates[0].mean() - rates[1].mean())
    assert abs(difference) < 2 * float(variance) ** 0.5
    assert float(variance) ** 0.5 < 0.02  # a wrong temperature would show
    wrong, _ = generated(make(sharpness=20.0), n, 64, served=0.1)
    others = torch.tensor([g.correct / g.n for g in wrong])
    assert float((others - rates[1]).abs().mean()) > 2 * float((rates[0] - rates[1]).abs().mean())


def test_report_temperature_is_the_engines(make):
    trainer = make(sharpness=20.0)
    callback = guarded(trainer, report_temperature=0)
    calls = counted(trainer)
    train(trainer, callback)
    probe = callback.guard.history[0]
    greedy = [params for _, params in calls if params.temperature == 0]
    assert len(greedy) == len(callback.guard.history)
    assert probe.served_pass_at_1 is not None
    assert trainer.vllm_generation.temperature == 1


# What a probe costs ------------------------------------------------------------------------------


def test_a_probe_is_one_call_and_no_forward_of_trls(make):
    trainer = make()
    callback = guarded(trainer)
    calls, forwards = counted(trainer), []
    original = trainer._get_per_token_logps_and_entropies

    def log_probs(*args, **kwargs):
        forwards.append(getattr(trainer, "_passk_guard_probing", False))
        return original(*args, **kwargs)

    trainer._get_per_token_logps_and_entropies = log_probs
    train(trainer, callback)
    assert trainer.args.generation_batch_size == 16
    sizes = [count for count, _ in calls]
    assert [count for count in sizes if count > 16] == [96, 96, 96]
    assert len(sizes) == 3 + 4  # a batch of 16 for each of the steps
    assert forwards
    assert not any(forwards)


@pytest.mark.parametrize(
    ("name", "value"),
    [("tools", [print]), ("environments", [object()]), ("reward_funcs", [torch.nn.Linear(1, 1)])],
)
def test_what_training_gives_few_rollouts_gets_few(make, name, value):
    trainer = make()
    assert rollouts_at_once(trainer) >= 1024
    setattr(trainer, name, value)
    assert rollouts_at_once(trainer) == trainer.args.generation_batch_size


# What is said -------------------------------------------------------------------------------------


def test_what_only_training_samples_with_is_told_once(make, caplog):
    caplog.set_level("INFO", logger="passk_guard")
    guarded(make(generation_kwargs={"stop": ["x"], "temperature": 1.0, "top_k": -1}))
    assert "training samples with" not in caplog.text
    guarded(make(top_k=2, generation_kwargs={"bad_words": ["4"], "temperature": 0.5}))
    assert caplog.text.count("training samples with") == 1
    told = caplog.text.split("training samples with ")[1].split(";")[0]
    assert told == "top_k=2, bad_words=['4'], temperature=0.5"


def test_logits_processors_of_the_engine_are_refused(make):
    trainer = make()
    config = trainer.vllm_generation.llm.llm_engine.model_config
    config.logits_processors = ["mine.NoDigits"]
    try:
        with pytest.raises(ValueError, match=r"logits_processors \(mine.NoDigits\)"):
            guarded(trainer)
    finally:
        config.logits_processors = None


def wrong(trainer, change):
    """An engine whose weights are others than those that it was given."""
    sync = trainer.vllm_generation.sync_weights

    def synced():
        sync()
        with torch.no_grad():
            change(vllm_runs.engine_weights(trainer).lm_head.weight)

    trainer.vllm_generation.sync_weights = synced


@pytest.mark.parametrize(("sharper", "named"), [(1.0, False), (1.5, True)])
def test_an_engine_that_is_another_model_is_named(make, sharper, named):
    trainer = make(sharpness=20.0)
    wrong(trainer, lambda weight: weight.mul_(sharper))
    callback = guarded(trainer, reference_prompts=64, num_generations=16)
    train(trainer, callback)
    guard = callback.guard
    assert (NamedState.INFERENCE_MISMATCH in guard.states) == named
    for probe in guard.history:
        seen = probe.inference
        assert seen.surely == named
        assert abs(seen.ratio - 1) < 4 * seen.ratio_se + 1e-3
        assert seen.tokens > 1500
        if not named:
            assert abs(seen.kl) < 0.1 * seen.bound
