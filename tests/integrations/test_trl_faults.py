"""What only a TRL trainer can lose in a fault; for the others see test_faults.py."""

from extras import needs

needs("trl")

from importlib.metadata import version
from math import comb

import pytest
import torch
from transformers import TrainerCallback
from trl import GRPOTrainer
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


def test_some_unscorable_rollouts_shrink_n(tmp_path):
    def patchy(completions, answer, **_):
        rewards = near_answer(completions, answer)
        return [None if i % 6 == 0 else r for i, r in enumerate(rewards)]

    trainer = make_trainer(tmp_path)
    callback = PassKGuardCallback(trainer, prompts=held_out(), reward_funcs=patchy, **GUARD)
    train(trainer, callback)
    assert [p.unscorable for p in callback.guard.history] == [16, 16, 16]
    assert callback.guard.history[0].rollouts == 16 * 5


@pytest.mark.parametrize(
    "name", ["_generate_and_score_completions", "_prepare_inputs", "_calculate_rewards"]
)
def test_a_release_that_renames_a_method_is_refused_as_the_guard_is_attached(tmp_path, name):
    trainer = make_trainer(tmp_path)
    trainer.__class__ = type("GRPOTrainer", (GRPOTrainer,), {name: property()})  # hasattr: False
    with pytest.raises(RuntimeError) as caught:
        PassKGuardCallback(trainer, prompts=held_out(), **GUARD)
    assert f"GRPOTrainer.{name} is missing in trl {version('trl')}" in str(caught.value)


def test_a_release_that_takes_other_arguments_is_refused(tmp_path):
    class Other(GRPOTrainer):
        def _prepare_inputs(self, batch, *, schedule):
            """Asks for more than the guard knows of."""

    trainer = make_trainer(tmp_path)
    trainer.__class__ = Other
    with pytest.raises(RuntimeError, match=r"_prepare_inputs does not take 1 argument\(s\)"):
        PassKGuardCallback(trainer, prompts=held_out(), **GUARD)


class Elsewhere(GRPOTrainer):
    """Computes its training rewards where nobody sees them."""

    since = 0  # optimizer steps

    def _generate_and_score_completions(self, inputs):
        hidden = {}
        if self.model.training and self.state.global_step >= self.since:
            hidden = {k: vars(self).pop(k) for k in ["_calculate_rewards"] if k in vars(self)}
        try:
            return super()._generate_and_score_completions(inputs)
        finally:
            vars(self).update(hidden)


FELL_BACK = "goes on with the trainer's own advantages.*computed no rewards for 16 rollouts"


@pytest.mark.usefixtures("faults")
@pytest.mark.parametrize("settings", [{"objective": "pkpo"}, {"action": "mix", "floor": 0.99}])
def test_rewards_that_are_not_seen_cost_the_objective_and_not_the_run(tmp_path, settings):
    def run(since, guarded=True):
        trainer = make_trainer(tmp_path, steps=5)
        trainer.__class__ = Elsewhere
        trainer.since = since
        callback = None
        if guarded:
            callback = PassKGuardCallback(trainer, prompts=held_out(), **GUARD | settings)
        return train(trainer, callback), callback

    alone, _ = run(0, guarded=False)
    with pytest.warns(PassKGuardWarning, match=FELL_BACK):
        trainer, callback = run(0)
    assert same_weights(weights(alone), weights(trainer))
    assert losses(alone) == losses(trainer)
    assert callback.guard.objective is None
    with pytest.warns(PassKGuardWarning, match=FELL_BACK) as caught:
        later, callback = run(3)
    assert len([w for w in caught if "own advantages" in str(w.message)]) == 1  # said once
    assert later.state.global_step == 5
    assert not callback.guard.failures
    assert not same_weights(weights(alone), weights(later))  # it worked until then


def test_on_error_raise_ends_the_run_there(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.__class__ = Elsewhere
    settings = {**GUARD, "objective": "pkpo", "on_error": "raise"}
    with pytest.raises(LookupError, match="computed no rewards"):
        train(trainer, PassKGuardCallback(trainer, prompts=held_out(), **settings))


class SetsK(TrainerCallback):
    """Somebody's own schedule of k, gone wrong."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 2:
            self.guard.objective.k = 99


@pytest.mark.usefixtures("faults")
def test_a_k_beyond_the_groups_set_while_training_costs_the_objective(tmp_path):
    trainer = make_trainer(tmp_path, steps=5)
    callback = PassKGuardCallback(trainer, prompts=held_out(), objective="pkpo", **GUARD)
    trainer.add_callback(callback)
    schedule = SetsK()
    schedule.guard = callback.guard
    trainer.add_callback(schedule)
    with pytest.warns(PassKGuardWarning, match=r"own advantages.*needs groups of at least 99"):
        trainer.train()
    assert trainer.state.global_step == 5


@pytest.mark.usefixtures("faults")
def test_training_rewards_that_cannot_be_read_are_a_sensor_less(tmp_path):
    class Otherwise(GRPOTrainer):
        """Keeps the rewards of its latest batch in another form."""

        def _generate_and_score_completions(self, inputs):
            output = super()._generate_and_score_completions(inputs)
            self._logs["rewards"]["near_answer"] = [{"mean": 0.5}]
            return output

    trainer = make_trainer(tmp_path)
    trainer.__class__ = Otherwise
    callback = PassKGuardCallback(trainer, prompts=held_out(), **GUARD)
    train(trainer, callback)
    assert trainer.state.global_step == 4
    assert [p.training_pass_at_1 for p in callback.guard.history] == [None] * 3


def test_a_group_that_is_too_small_is_refused_with_both_numbers(tmp_path):
    trainer = make_trainer(tmp_path, num_generations=4)
    settings = {**GUARD, "objective": "analytic"}
    with pytest.raises(ValueError, match=r"at least 5 rollouts, .* num_generations=4"):
        PassKGuardCallback(trainer, prompts=held_out(), **settings)
    PassKGuardCallback(trainer, prompts=held_out(), **settings | {"objective": "pkpo"})


def test_the_weights_in_force_are_those_of_the_training_groups(tmp_path):
    """Groups of 4 in training, of 8 at the start; GRPO scales each by its rewards' deviation."""
    trainer = make_trainer(tmp_path, steps=1, num_generations=4, scale_rewards="group")
    callback = PassKGuardCallback(trainer, prompts=held_out(), num_generations=8, **GUARD)
    train(trainer, callback)
    probe = callback.guard.history[0]
    seen = {c: float(w) for c, w in zip(probe.correct, probe.weights, strict=True) if 0 < c < 8}

    def deviation(c, n):
        return torch.tensor([1.0] * c + [0.0] * (n - c)).std() + 1e-4

    # ω(c): of c-1 right ones among 6 how many come into a training group beside one of each.
    assert len(seen) > 2
    for c, weight in seen.items():
        ways = [comb(c - 1, b) * comb(7 - c, 2 - b) / comb(6, 2) for b in range(3)]
        want = 7 / 8 * sum(w / deviation(b + 1, 4) for b, w in enumerate(ways))
        assert weight == pytest.approx(float(want), rel=1e-4)
        if c == 1:
            assert abs(weight - 7 / 8 / float(deviation(c, 8))) > 0.1  # as seen in the probe
