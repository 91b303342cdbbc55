"""Probes through vLLM in the process: plain, cheap, and without a trace."""

from extras import needs

needs("trl", "vllm", "peft")

import warnings

import pytest
import torch
import vllm_runs  # before whatever else imports vLLM
from peft import LoraConfig
from transformers import TrainerCallback
from trl_runs import GUARD, held_out, losses, make_trainer, same_weights, train, weights
from vllm import SamplingParams
from vllm_runs import engine_weights, saved_model, vllm_rloo_trainer, vllm_trainer

from passk_guard.detection.named_states import NamedState
from passk_guard.integrations._trl_vllm import rollouts_at_once
from passk_guard.integrations.trl import PassKGuardCallback
from passk_guard.statistics.inference_mismatch import inference_mismatch

pytestmark = [
    pytest.mark.vllm,
    # vLLM's and torch's own, as an engine is made.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:TRL currently supports vLLM versions"),
]

FILTERS = {
    "top_k": 2,
    "top_p": 0.9,
    "repetition_penalty": 1.3,
    "temperature": 0.7,
    "generation_kwargs": {"allowed_token_ids": [4, 5, 6], "logit_bias": {4: 0.5}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("model")


@pytest.fixture
def make(tmp_path, folder):
    return lambda **config: vllm_trainer(tmp_path, folder, **config)


def guarded(trainer, **settings):
    return PassKGuardCallback(trainer, prompts=held_out(), **{**GUARD, **settings})


def generated(trainer, n=8, prompts=8, *, served=None, **settings):
    """Rollouts, at ``report_temperature=served`` where that is given, and their log-probs."""
    policy, pool = (guard := guarded(trainer, **settings).guard).policy, guard.pool
    ids = list(range(prompts))
    with policy.isolated(0):
        groups = policy.generate([pool.rows[i] for i in ids], ids, n, served)
        scores = [policy.log_probs(*group.tokens).detach() for group in groups]
    return groups, scores


def counted(trainer):
    """Calls of the engine from now on: how many prompts, with what."""
    calls, llm = [], trainer.vllm_generation.llm
    original = type(llm).generate

    def generate(prompts, sampling_params, **more):
        calls.append((len(prompts), sampling_params))
        return original(llm, prompts, sampling_params=sampling_params, **more)

    llm.generate = generate
    return calls


@pytest.fixture(autouse=True)
def engine_as_made():
    """Engines are shared: what a test puts before their methods goes with it."""
    yield
    for llm in vllm_runs.ENGINES.values():
        for name in ("generate", "sleep", "wake_up"):
            vars(llm).pop(name, None)
        vars(llm.llm_engine).pop("step", None)


# The run is as without the guard -----------------------------------------------------------------


class Draws(TrainerCallback):
    """Takes one random number: what a guard that left a trace might do."""

    def on_step_end(self, args, state, control, **kwargs):
        torch.rand(1)


@pytest.mark.parametrize("config", [{}, FILTERS], ids=["plain", "filters"])
def test_warn_leaves_weights_and_losses_bit_identical(make, config):
    alone = train(make(**config))
    trainer = make(**config)
    callback = guarded(trainer, report_temperature=0)
    train(trainer, callback)
    assert [p.step for p in callback.guard.history] == [0, 2, 4]
    assert same_weights(weights(alone), weights(trainer))
    assert losses(alone) == losses(trainer)
    other = train(make(**config), Draws())
    assert not same_weights(weights(alone), weights(other))


@pytest.mark.usefixtures("faults")
@pytest.mark.parametrize("fails", [False, True])
def test_adapters_are_merged_for_a_probe_without_a_trace(make, fails):
    """TRL merges them in place and out again: rounding is left, once more than without a probe."""

    def adapted():
        adapter = LoraConfig(r=2, task_type="CAUSAL_LM", init_lora_weights=False)
        return make(sharpness=20.0, steps=6, num_iterations=2, parts={"peft_config": adapter})

    alone, trainer = train(adapted()), adapted()
    engine, syncs = trainer.vllm_generation, []
    iterate = engine._iter_named_params

    def named_params():
        syncs.append(getattr(trainer, "_passk_guard_probing", False))
        for i, named in enumerate(iterate()):
            if fails and syncs[-1] and sum(syncs) == 2 and i == 4:
                raise RuntimeError("out of memory")  # the adapters are merged by now
            yield named

    engine._iter_named_params = named_params
    callback = guarded(trainer)
    with warnings.catch_warnings():
        warnings.filterwarnings("default", "passk-guard: .* this probe is lost")
        train(trainer, callback)
    assert len(callback.guard.failures) == fails
    assert [p.step for p in callback.guard.history] == ([0, 4, 6] if fails else [0, 2, 4, 6])
    assert all(abs(p.inference.kl) < p.inference.bound / 2 for p in callback.guard.history)
    assert same_weights(weights(alone), weights(trainer))
    assert losses(alone) == losses(trainer)
    before = weights(trainer)
    engine.sync_weights()
    assert not same_weights(before, weights(trainer))  # what a probe would leave


def test_rloo_is_left_alone_and_compared_as_well(tmp_path, folder):
    alone = train(vllm_rloo_trainer(tmp_path, folder, sharpness=20.0))
    watched = vllm_rloo_trainer(tmp_path, folder, sharpness=20.0)
    callback = guarded(watched)
    train(watched, callback)
    assert same_weights(weights(alone), weights(watched))
    for probe in callback.guard.history:
        assert probe.inference.tokens > 200
        assert abs(probe.inference.kl) < 0.1 * probe.inference.bound


@pytest.mark.usefixtures("faults")
def test_a_probe_that_fails_in_the_engine_leaves_no_request_and_no_setting(make):
    alone = train(make(**FILTERS))
    trainer = make(**FILTERS)
    engine, callback = trainer.vllm_generation, guarded(trainer, report_temperature=0)
    before = {k: v for k, v in vars(engine).items() if not k.startswith("_")}
    inner, steps = engine.llm.llm_engine, []

    def step():
        steps.append(getattr(trainer, "_passk_guard_probing", False))
        if steps[-1] and sum(steps) in (2, 5):
            raise RuntimeError("out of memory")
        return type(inner).step(inner)

    inner.step = step
    with pytest.warns(UserWarning, match="this probe is lost .* out of memory"):
        train(trainer, callback)
    assert len(callback.guard.failures) == 2
    assert inner.get_num_unfinished_requests() == 0
    after = {k: v for k, v in vars(engine).items() if not k.startswith("_")}
    assert after == before
    assert same_weights(weights(alone), weights(trainer))
    assert losses(alone) == losses(trainer)


def test_settings_are_put_back_after_a_probe(make):
    trainer = make(**FILTERS)
    engine = trainer.vllm_generation
    before = dict(vars(engine))
    groups, _ = generated(trainer)
    assert groups
    assert vars(engine) == before
    assert engine.top_k == 2
    assert engine.generation_kwargs == FILTERS["generation_kwargs"]
    assert trainer.vllm_importance_sampling_correction
    assert trainer.args.steps_per_generation == 1


def test_none_of_a_probes_prompts_stays_in_the_engines_cache(make):
    """Training would meet their rounding: a prefix that both have is computed with others."""
    trainer = make()
    llm, prompt = trainer.vllm_generation.llm, {"prompt_token_ids": [4, 5, 6, 7] * 80}

    def cached():
        return llm.generate([prompt], sampling_params=SamplingParams(max_tokens=1), use_tqdm=False)[
            0
        ].num_cached_tokens

    cached()
    assert cached() > 0
    generated(trainer)
    assert cached() == 0


@pytest.mark.usefixtures("faults")
def test_an_engine_sleeps_where_it_slept(make):
    """Only a GPU's engine can sleep: here it is noted when it is told to."""
    trainer = make()
    engine, told = trainer.vllm_generation, []
    llm, inner = engine.llm, engine.llm.llm_engine
    llm.sleep = lambda level: told.append("sleep")
    llm.wake_up = lambda tags: told.append(tags[0])
    engine.enable_sleep_mode = engine._llm_weights_sleeping = True
    callback, steps = guarded(trainer, report_temperature=0), []

    def step():
        steps.append(getattr(trainer, "_passk_guard_probing", False))
        if steps[-1] and sum(steps) == 2:
            raise RuntimeError("out of memory")
        return type(inner).step(inner)

    inner.step = step
    with pytest.warns(UserWarning, match="this probe is lost"):
        train(trainer, callback)
    assert [p.step for p in callback.guard.history] == [2, 4]
    assert told[:3] == ["weights", "kv_cache", "sleep"]  # of the probe that failed
    assert told == ["weights", "kv_cache", "sleep"] * (len(told) // 3)
    assert engine._llm_weights_sleeping


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
def test_pass_at_1_is_that_of_the_models_own_generation(make, tmp_path, folder, temperature):
    """On a model with something to prefer; at 0 answer by answer, at 1 within 2 standard errors."""
    n = 2 if temperature == 0 else 64
    engine, _ = generated(make(sharpness=20.0), n, 64, served=temperature)
    inside = make_trainer(tmp_path, model=saved_model(folder, 20.0))
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
    # Two reference batches at the first look; a batch of 16 for each of the steps.
    assert [count for count in sizes if count > 16] == [128, 126, 128, 128]
    assert len(sizes) == 4 + 4
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
            change(engine_weights(trainer).lm_head.weight)

    trainer.vllm_generation.sync_weights = synced


@pytest.mark.parametrize(("sharper", "named"), [(1.0, False), (1.5, True)])
def test_an_engine_that_is_another_model_is_named(make, sharper, named):
    trainer = make(sharpness=20.0)
    wrong(trainer, lambda weight: weight.mul_(sharper))
    callback = guarded(trainer, prompts_per_probe=64, num_generations=16)
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
