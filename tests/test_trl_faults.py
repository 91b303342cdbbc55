"""Faults injected into real GRPO runs cost a probe, never the run; and resume."""

import re

import pytest
import torch
from transformers import TrainerCallback
from trl_runs import (
    GUARD,
    held_out,
    losses,
    make_trainer,
    near_answer,
    same_weights,
    train,
    weights,
)

from passk_guard import PassKGuardWarning
from passk_guard.integrations.trl import PassKGuardCallback


class Flaky:
    """A verifier that misbehaves on the held-out prompts of one probe."""

    __name__ = "flaky"

    def __init__(self, fault):
        self.fault, self.armed = fault, False

    def __call__(self, completions, answer, **kwargs):
        rewards = near_answer(completions, answer)
        return self.fault(rewards) if self.armed else rewards


def boom(rewards):
    raise RuntimeError("judge is down")


def out_of_memory(rewards):
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.filterwarnings("ignore:All reward functions returned None")
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (boom, "judge is down"),
        (out_of_memory, "out of memory"),
        (lambda rewards: rewards[:-1], "rewards|expanded size"),  # TRL's words, or torch's
        (lambda rewards: None, "NoneType"),
        (lambda rewards: [None] * len(rewards), "verifier scored 0 of"),
        (lambda rewards: [float("nan")] * len(rewards), "verifier scored 0 of"),
    ],
    ids=["raises", "out of memory", "wrong length", "None", "all None", "all NaN"],
)
def test_a_verifier_fault_costs_that_probe_only(tmp_path, fault, reason):
    flaky = Flaky(fault)

    class Arm(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            flaky.armed = state.global_step == 2

        def on_step_begin(self, args, state, control, **kwargs):
            flaky.armed = False

    alone = train(make_trainer(tmp_path, steps=6, dropout=0.1))
    trainer = make_trainer(tmp_path, steps=6, dropout=0.1, reward_funcs=flaky, callbacks=[Arm()])
    callback = PassKGuardCallback(trainer, prompts=held_out(), **GUARD)
    with pytest.warns(PassKGuardWarning, match="this probe is lost"):
        train(trainer, callback)
    assert [p.step for p in callback.guard.history] == [0, 4, 6]
    (failure,) = callback.guard.failures
    assert failure.step == 2
    assert re.search(reason, failure.reason)
    assert same_weights(weights(alone), weights(trainer))
    strip = lambda logs: [{k: v for k, v in e.items() if "rewards/" not in k} for e in logs]  # noqa: E731
    assert strip(losses(alone)) == strip(losses(trainer))


def test_some_unscorable_rollouts_shrink_n(tmp_path):
    def patchy(completions, answer, **_):
        rewards = near_answer(completions, answer)
        return [None if i % 8 == 0 else r for i, r in enumerate(rewards)]

    trainer = make_trainer(tmp_path)
    callback = PassKGuardCallback(trainer, prompts=held_out(), reward_funcs=patchy, **GUARD)
    train(trainer, callback)
    assert [p.unscorable for p in callback.guard.history] == [16, 16, 16]
    assert callback.guard.history[0].rollouts == 16 * 7


def test_ctrl_c_in_a_probe_stops_training_as_it_should(tmp_path):
    def interrupt(rewards):
        raise KeyboardInterrupt

    flaky = Flaky(interrupt)
    trainer = make_trainer(tmp_path, reward_funcs=flaky)
    callback = PassKGuardCallback(trainer, prompts=held_out(), **GUARD)
    trainer.add_callback(callback)
    flaky.armed = True
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert getattr(trainer, "num_generations_eval", 8) == trainer.num_generations == 8
    assert trainer.model.training or trainer.state.global_step == 0
    assert "_calculate_rewards" not in vars(trainer)


def test_resume_goes_on_where_the_checkpoint_was(tmp_path):
    config = {"steps": 8, "save_strategy": "steps", "save_steps": 4}
    whole = make_trainer(tmp_path / "a", **config)
    first = PassKGuardCallback(whole, prompts=held_out(), **GUARD)
    train(whole, first)
    again = make_trainer(tmp_path / "a", **config)
    second = PassKGuardCallback(again, prompts=held_out(), **GUARD)
    again.add_callback(second)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-4"))
    assert [p.step for p in second.guard.history] == [6, 8]
    assert [p.track for p in second.guard.history] == [p.track for p in first.guard.history[3:]]
    assert same_weights(weights(whole), weights(again))
