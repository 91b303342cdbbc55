"""Bad arguments fail at once, before training, naming the argument and the mend."""

from extras import needs

needs("trl")

import pytest
from trl_runs import (
    GUARD,
    held_out,
    make_trainer,
    near_answer,
)

from passk_guard import PassKGuardWarning
from passk_guard.integrations.trl import PassKGuardCallback


def format_reward(completions, **_):
    return [0.1] * len(completions)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"prompts": None}, ValueError, "prompts is missing and the trainer has no eval_dataset"),
        ({"reward_funcs": ["x"]}, ValueError, "names a reward model"),
        ({"reward_funcs": [near_answer, format_reward]}, ValueError, "Say which decides"),
        ({"success": "typo"}, ValueError, "names no reward function. There are: near_answer"),
        ({"objective": "pkpo", "k": 9}, ValueError, "the trainer has num_generations=8"),
    ],
)
def test_bad_arguments(tmp_path, settings, error, message):
    trainer = make_trainer(tmp_path)
    settings = {"prompts": held_out(), **settings}
    with pytest.raises(error, match=message):
        PassKGuardCallback(trainer, **settings)


def test_several_rewards_of_the_trainer_need_success(tmp_path):
    trainer = make_trainer(tmp_path, reward_funcs=[near_answer, format_reward])
    with pytest.raises(ValueError, match=r"2 reward functions .* success='near_answer'"):
        PassKGuardCallback(trainer, prompts=held_out())


def test_a_dataset_without_prompts_column(tmp_path):
    data = held_out().rename_column("prompt", "question")
    with pytest.raises(ValueError, match="no 'prompt' column, it has \\['answer', 'question'\\]"):
        PassKGuardCallback(make_trainer(tmp_path), prompts=data)


def test_bad_arguments_in_the_list_form_fail_before_training(tmp_path):
    trainer = make_trainer(tmp_path, callbacks=[PassKGuardCallback(prompts=[])])
    with pytest.raises(ValueError, match="prompts is empty"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_the_wrong_trainer_and_no_trainer(tmp_path):
    from transformers import Trainer, TrainingArguments

    model = make_trainer(tmp_path).model
    plain = Trainer(model=model, args=TrainingArguments(str(tmp_path), use_cpu=True))
    with pytest.raises(TypeError, match=r"guards trainers of TRL, got Trainer"):
        PassKGuardCallback(plain, prompts=held_out())
    with pytest.raises(RuntimeError, match="has no guard yet"):
        PassKGuardCallback(prompts=held_out()).guard  # noqa: B018


def test_the_eval_dataset_is_the_default_and_the_training_set_is_warned_about(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.eval_dataset = held_out(200)
    assert len(PassKGuardCallback(trainer, **GUARD).guard.pool) == 200
    with pytest.warns(PassKGuardWarning, match="64 of the 64 held-out prompts are also training"):
        PassKGuardCallback(trainer, prompts=trainer.train_dataset, **GUARD)


def test_a_small_pool_is_warned_about(tmp_path):
    with pytest.warns(PassKGuardWarning, match="the pool has 64 prompts"):
        PassKGuardCallback(make_trainer(tmp_path), prompts=held_out(64), **GUARD)
