"""What only a TRL trainer can lose in a fault; for the others see test_faults.py."""

from extras import needs

needs("trl")

import pytest
from trl_runs import (
    GUARD,
    held_out,
    make_trainer,
    near_answer,
    train,
)

from passk_guard.integrations.trl import PassKGuardCallback


class Flaky:
    """A verifier that misbehaves on the held-out prompts of one probe."""

    __name__ = "flaky"

    def __init__(self, fault):
        self.fault, self.armed = fault, False

    def __call__(self, completions, answer, **kwargs):
        rewards = near_answer(completions, answer)
        return self.fault(rewards) if self.armed else rewards


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
