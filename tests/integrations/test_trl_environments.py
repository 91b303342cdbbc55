"""TRL environments: a probe plays in instances of its own, and training never notices."""

from extras import needs

needs("trl")

import random

import pytest
import torch
from datasets import Dataset
from test_trl_subclasses import HELD_OUT, TRAINED_ON
from test_trl_tools import Desk, last_answer, pytestmark, tokenizer  # noqa: F401
from trl import GRPOTrainer
from trl_runs import (
    GUARD,
    chat_rows,
    losses,
    make_trainer,
    near_answer,
    same_weights,
    train,
    weights,
)

from passk_guard import PassKGuardWarning
from passk_guard.integrations.trl import PassKGuardCallback

if not hasattr(GRPOTrainer, "_generate"):
    pytest.skip("this TRL has no environments", allow_module_level=True)


class Lucky(Desk):
    """Counts itself, draws random numbers as it is made, and shows one with each prompt."""

    made = 0

    def __init__(self):
        Lucky.made += 1
        self.number = Lucky.made
        self.luck = int(10 * random.random()) + int(10 * torch.rand(()))
        self.prompts = []

    def reset(self, prompt, **_):
        self.prompts.append(prompt[0]["content"])
        return f" {(self.luck + self.number) % 10}"


def new(folder, factory, **config):
    return make_trainer(
        folder,
        steps=3,
        reward_funcs=last_answer,
        rows=chat_rows(TRAINED_ON),
        tokenizer=tokenizer(),
        parts={"environment_factory": factory},
        **{"max_completion_length": 4, **config},
    )


def guarded(trainer, rows=None, **settings):
    rows = chat_rows(HELD_OUT) if rows is None else rows
    callback = PassKGuardCallback(trainer, prompts=rows, **GUARD | settings)
    return train(trainer, callback), callback.guard


@pytest.mark.parametrize("config", [{}, {"per_device_train_batch_size": 4, "num_generations": 4}])
def test_training_makes_and_plays_in_its_own(tmp_path, config):
    Lucky.made = 0
    alone = train(new(tmp_path, Lucky, **config))
    Lucky.made, size = 0, alone.args.generation_batch_size
    watched, guard = guarded(new(tmp_path, Lucky, **config))
    assert not guard.failures
    assert [probe.step for probe in guard.history] == [0, 2]
    assert set(guard.history[0].scored) == {6}
    assert losses(alone) == losses(watched)
    assert same_weights(weights(alone), weights(watched))
    for one, other in zip(*(t._environment_pool[None] for t in (alone, watched)), strict=True):
        assert (one.number, one.luck, one.prompts) == (other.number, other.luck, other.prompts)
    assert Lucky.made == size + min(size, 12)


def test_the_first_look_is_at_the_untouched_policy(tmp_path):
    before = weights(trainer := new(tmp_path, Lucky))
    seen = []

    def look(found, guard):
        seen.append(same_weights(before, weights(trainer)))

    _, guard = guarded(trainer, floor=0.99, every=1, action=look)
    assert [probe.step for probe in guard.history] == [0, 1, 2, 3]
    assert seen[0]
    assert not any(seen[1:])


@pytest.mark.usefixtures("faults")
def test_a_factory_that_has_no_more_costs_probes_and_says_so(tmp_path):
    def from_list(count):
        servers = [Desk() for _ in range(count)]
        return lambda: servers.pop(0) if servers else next(iter(()))

    alone = train(new(tmp_path, Desk))
    with pytest.warns(PassKGuardWarning, match="this probe is lost.*environment_factory made 4"):
        watched, guard = guarded(new(tmp_path, from_list(20)))
    assert same_weights(weights(alone), weights(watched))
    reason = guard.failures[0].reason
    assert "made 4 of the 12 environments that a probe needs" in reason
    assert "(StopIteration at test_trl_environments.py:" in reason
    watched, guard = guarded(new(tmp_path, from_list(32), per_device_eval_batch_size=32))
    assert not guard.failures
    watched.evaluate(chat_rows(TRAINED_ON).select(range(4)))  # needs all of them
    assert len(watched._environment_pool[None]) == 32


class Asks(Desk):
    """Has the prompts itself."""

    def reset(self):
        return "3 4 ="


def test_rows_with_nothing_but_an_environment(tmp_path, recwarn):
    def reward(completions, **_):
        return near_answer([c[-1]["content"].strip() for c in completions], "1" * len(completions))

    rows, runs = Dataset.from_dict({"environment": ["a", "b"] * 40}), []
    for run in (train, lambda trainer: guarded(trainer, rows)):
        trainer = new(tmp_path, {"a": Asks, "b": Asks})
        trainer.train_dataset, trainer.reward_funcs = rows, [reward]
        runs.append(run(trainer))
    alone, (watched, guard) = runs
    assert not guard.failures
    assert len(guard.history) == 2
    assert same_weights(weights(alone), weights(watched))
    assert not [w for w in recwarn if "duplicates" in str(w.message)]
