"""Probes through vLLM in the process leave no trace in the run."""

from extras import needs

needs("trl", "vllm", "peft")

import warnings

import pytest
import torch
import vllm_runs  # before whatever else imports vLLM
from peft import LoraConfig
from transformers import TrainerCallback
from trl_runs import losses, same_weights, train, weights
from vllm import SamplingParams
from vllm_probes import FILTERS, engines_as_made, generated, guarded

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


def test_rloo_is_left_alone_and_compared_as_well(tmp_path):
    alone = train(vllm_runs.vllm_rloo_trainer(tmp_path, sharpness=20.0))
    watched = vllm_runs.vllm_rloo_trainer(tmp_path, sharpness=20.0)
    callback = guarded(watched)
    train(watched, callback)
    assert same_weights(weights(alone), weights(watched))
    for probe in callback.guard.history:
        assert probe.inference.tokens > 150
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
