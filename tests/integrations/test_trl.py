"""The callback in real GRPO runs: it leaves them bit-identical, and reports."""

from extras import needs

needs("trl", "tensorboard")

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerCallback
from trl import GRPOConfig
from trl_runs import (
    GUARD,
    held_out,
    losses,
    make_trainer,
    same_weights,
    train,
    weights,
)

from passk_guard.integrations.trl import PassKGuardCallback


@pytest.mark.parametrize(
    "config",
    [
        {"checkpointing": True, "gradient_accumulation_steps": 2},
        {"num_iterations": 2, "beta": 0.04, "mask_truncated_completions": True, "top_p": 0.9},
    ],
    ids=["checkpointing", "reuse"],
)
def test_weights_and_losses_are_bit_identical_with_and_without(tmp_path, config):
    if "beta" in config:  # TRL loads the reference model by name
        from ambiguous_arithmetic import make_model, make_tokenizer

        saved = tmp_path / "model"
        make_model(make_tokenizer(), hidden=32, layers=1, dropout=0.1).save_pretrained(saved)
        make_tokenizer().save_pretrained(saved)

        def new(**kw):
            from transformers import AutoModelForCausalLM

            model = AutoModelForCausalLM.from_pretrained(saved, attention_dropout=0.1)
            return make_trainer(tmp_path, steps=20, model=model, **config, **kw)
    else:

        def new(**kw):
            return make_trainer(tmp_path, steps=20, dropout=0.1, **config, **kw)

    alone = train(new())
    trainer = new()
    callback = PassKGuardCallback(trainer, prompts=held_out(), **GUARD)
    guarded = train(trainer, callback)
    assert [p.step for p in callback.guard.history] == list(range(0, 21, 2))
    assert not callback.guard.failures
    assert same_weights(weights(alone), weights(guarded))
    assert losses(alone) == losses(guarded)
    start = new()
    assert not same_weights(weights(start), weights(alone))  # something was trained


def test_sampling_without_isolation_fails_the_same_comparison(tmp_path):
    class Careless(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            model.generate(torch.tensor([[4]]), max_new_tokens=1, do_sample=True, pad_token_id=0)

    alone = train(make_trainer(tmp_path, steps=20))
    careless = train(make_trainer(tmp_path, steps=20), Careless())
    assert not same_weights(weights(alone), weights(careless))


def test_both_forms_give_the_same_history(tmp_path):
    one = make_trainer(tmp_path)
    first = PassKGuardCallback(one, prompts=held_out(), **GUARD)
    train(one, first)
    second = PassKGuardCallback(prompts=held_out(), **GUARD)
    train(make_trainer(tmp_path, callbacks=[second]))
    assert [p.update_alignment.z for p in first.guard.history] == [
        p.update_alignment.z for p in second.guard.history
    ]


def test_scalars_and_image_reach_tensorboard_at_their_own_step(tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "tb"))
    config = {"report_to": "tensorboard", "logging_steps": 3}
    if "logging_dir" in GRPOConfig.__dataclass_fields__:  # transformers 4 has no such variable
        config["logging_dir"] = str(tmp_path / "tb")
    trainer = make_trainer(tmp_path, **config)
    callback = PassKGuardCallback(trainer, prompts=held_out(), **GUARD)
    train(trainer, callback)
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    tags = events.Tags()
    wanted = "pass_at_1 pass_at_k cosine_at_k z drift alarm k pass1_weight no_signal seconds"
    for name in wanted.split():
        assert f"train/passk_guard/{name}" in tags["scalars"], name
    scalars = events.Scalars("train/passk_guard/pass_at_1")
    assert [s.step for s in scalars] == [0, 2, 4]
    for scalar, probe in zip(scalars, callback.guard.history, strict=True):
        assert scalar.value == pytest.approx(probe.pass_at_1)
    assert [s.step for s in events.Scalars("train/loss")] == [3]  # its log is left alone
    assert "passk_guard/alignment_curve" in tags["images"]
