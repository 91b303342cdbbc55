"""Other TRL trainers are watched; the wrong class for a trainer names the right import."""

from extras import needs

needs("trl", "lightning")

import ambiguous_arithmetic as task
import own_loss
import pytest
from hosts import HOSTS, lightning_trainer, model
from hosts import settings as guard_settings
from trl import SFTConfig, SFTTrainer
from trl_runs import GUARD, held_out, make_trainer, near_answer, same_weights, weights

from passk_guard.integrations import lightning as for_lightning
from passk_guard.integrations import transformers as for_transformers
from passk_guard.integrations import trl as for_trl

KEYWORDS = {**GUARD, "prompts": held_out(), "reward_funcs": near_answer}


def sft(out):
    rows = task.make_rows(64).map(lambda row: {"completion": " " + row["answer"]})
    checkpointing = "activation_checkpointing"
    if checkpointing not in SFTConfig.__dataclass_fields__:
        checkpointing = "gradient_checkpointing"
    return SFTTrainer(
        model=model(),
        args=SFTConfig(
            output_dir=str(out),
            max_steps=6,
            learning_rate=1e-3,
            report_to="none",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            save_strategy="no",
            **{checkpointing: False},
        ),
        train_dataset=rows.remove_columns("answer"),
        processing_class=task.make_tokenizer(),
    )


def online_dpo(out):
    module = pytest.importorskip("trl.experimental.online_dpo", reason="older releases lack it")
    return module.OnlineDPOTrainer(
        model=model(),
        reward_funcs=near_answer,
        args=module.OnlineDPOConfig(
            output_dir=str(out),
            max_steps=4,
            max_new_tokens=2,
            max_length=16,
            per_device_train_batch_size=8,
            learning_rate=1e-3,
            report_to="none",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            save_strategy="no",
        ),
        train_dataset=task.make_rows(64),
        processing_class=task.make_tokenizer(),
    )


@pytest.mark.parametrize("make", [sft, online_dpo])
def test_other_trl_trainers_are_watched_and_untouched(tmp_path, make, caplog):
    caplog.set_level("INFO", logger="passk_guard")
    alone = make(tmp_path / "alone")
    alone.train()
    trainer = make(tmp_path / "guarded")
    callback = for_trl.PassKGuardCallback(trainer, **KEYWORDS)
    trainer.add_callback(callback)
    trainer.train()
    assert [p.step for p in callback.guard.history][:3] == [0, 2, 4]
    assert not callback.guard.failures
    assert same_weights(weights(alone), weights(trainer))
    assert "shows no advantages, so the guard only watches" in caplog.text


@pytest.mark.parametrize(
    "bad", [{"action": "mix"}, {"action": "adjust_k"}, {"objective": "pkpo"}], ids=str
)
def test_what_needs_advantages_is_refused_there(tmp_path, bad):
    trainer = sft(tmp_path)
    with pytest.raises(ValueError, match="is not possible here: SFTTrainer has no advantages"):
        for_trl.PassKGuardCallback(trainer, **KEYWORDS, **bad)


# Older releases of Lightning refuse by themselves.
REFUSED = r"use passk_guard.integrations.lightning|Expected a parent"


def fit_with(callback, out):
    trainer = lightning_trainer(out, [callback], max_steps=1)
    trainer.fit(own_loss.Module(model(), task.make_tokenizer()), own_loss.loader())


def test_the_wrong_class_names_the_right_import(tmp_path):
    plain = own_loss.make_trainer(model(), str(tmp_path), steps=1)
    with pytest.raises(TypeError, match=r"Use passk_guard.integrations.transformers"):
        for_trl.PassKGuardCallback(plain, **KEYWORDS)
    with pytest.raises(TypeError, match=r"use passk_guard.integrations.trl"):
        for_transformers.PassKGuardCallback(make_trainer(tmp_path), **KEYWORDS)
    plain.add_callback(for_lightning.PassKGuardCallback(**KEYWORDS))
    with pytest.raises(TypeError, match=r"Use passk_guard.integrations.transformers"):
        plain.train()
    for module in (for_trl, for_transformers):
        with pytest.raises((TypeError, ValueError), match=REFUSED):
            fit_with(module.PassKGuardCallback(**KEYWORDS), tmp_path)
        with pytest.raises(TypeError, match=r"passk_guard.integrations.lightning"):
            module.PassKGuardCallback(lightning_trainer(tmp_path, []), **KEYWORDS)


@pytest.mark.parametrize("name", ["transformers", "lightning"])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"action": "mix"}, "action='mix' needs anchor_prompts on"),
        (
            {"action": "adjust_k"},
            "'adjust_k' lowers the k of an objective that the guard can reach",
        ),
        ({"objective": "pkpo"}, "Compute your loss with passk_guard.PassKObjective"),
        ({"anchor_prompts": ["1 2 ="]}, "Add action='mix'"),
        ({"action": "mix", "anchor_prompts": held_out(), "anchor_batch_size": 0}, "at least 1"),
        ({"action": "mix", "anchor_prompts": ["1 2 ="]}, "needs 'answer'"),
        ({"reward_funcs": None}, "reward_funcs is missing"),
        ({"reward_funcs": "no_such.module"}, "cannot be imported"),
        ({"policy": lambda model: 3}, "policy must give an object with generate"),
        ({"max_completion_length": 0}, "max_completion_length must be a whole number, at least 1"),
    ],
)
def test_bad_arguments_of_trainers_without_advantages(tmp_path, name, bad, message):
    host = HOSTS[name]
    with pytest.raises((ValueError, TypeError), match=message):
        host.run(tmp_path, steps=1, guard=guard_settings(host) | bad)


@pytest.mark.parametrize("name", ["transformers", "lightning"])
def test_held_out_prompts_are_no_anchors(tmp_path, name):
    host, rows = HOSTS[name], held_out()
    keywords = guard_settings(host, action="mix", anchor_prompts=rows) | {"prompts": rows}
    with pytest.raises(ValueError, match="measured on, never trained on"):
        host.run(tmp_path, steps=1, guard=keywords)
