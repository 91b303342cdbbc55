"""A trainer can be copied and pickled with a guard as without, and the copy has its own guard."""

from extras import needs

needs("trl", "lightning")

import copy
import io
from importlib import metadata

import pytest
import torch
from accelerate.state import GradientState
from hosts import HOSTS, settings
from lightning_runs import Automatic, batches, fit, guard, steps_of
from packaging.version import Version
from test_one_trainer import plain, trl
from transformers import TrainerCallback, set_seed
from trl_runs import near_answer, same_weights, weights

from passk_guard.integrations._trainer_callback import GuardCallback
from passk_guard.reporting.read_run import read_run


class Copies(TrainerCallback):
    """Copies its trainer in the middle of training."""

    def __init__(self, trainer):
        self.trainer, self.copy = trainer, None

    def on_step_end(self, args, state, control, **kwargs):
        trainer, self.trainer = self.trainer, None
        if trainer is not None:
            self.copy = copy.deepcopy(trainer)


OF_TODAY = pytest.mark.skipif(
    Version(metadata.version("trl")) < Version("1"), reason="cannot be copied, guarded or not"
)
TRL = pytest.param("trl", marks=OF_TODAY)


def trained(name, out, keywords):
    trainer = {"trl": trl, "transformers": plain}[name](out)
    trainer.verify = near_answer
    trainer.add_callback(copies := Copies(trainer))
    if keywords is not None:
        trainer.add_callback(HOSTS[name].callback(trainer, **keywords))
    trainer.train()
    return trainer, copies.copy


def saved(thing):
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def guard_of(trainer):
    return next(c for c in trainer.callback_handler.callbacks if isinstance(c, GuardCallback))


@pytest.mark.long
@pytest.mark.parametrize("name", [TRL, "transformers"])
def test_a_copy_made_in_training_guards_itself(tmp_path, name):
    alone, plain_copy = trained(name, tmp_path / "alone", None)
    trainer, copied = trained(name, tmp_path / "guarded", settings(HOSTS[name]))
    assert same_weights(weights(alone), weights(trainer))
    found, kept = guard_of(trainer).guard.history[:], weights(trainer)
    with pytest.raises(RuntimeError, match="has no guard yet"):
        _ = guard_of(copied).guard
    for one in (copied, plain_copy):
        set_seed(0)
        one.train()
    assert same_weights(weights(plain_copy), weights(copied))
    own = guard_of(copied).guard
    assert [probe.step for probe in own.history] == [0, 2]
    measured = dict(own.policy.parameters())
    assert all(measured[name] is p for name, p in copied.model.named_parameters())
    assert own.history[-1].k == 4  # as it was set
    assert guard_of(trainer).guard.history == found
    assert same_weights(weights(trainer), kept)


@OF_TODAY
def test_a_copy_has_none_of_the_overrides_that_an_objective_installs(tmp_path):
    trainer, copied = trained("trl", tmp_path, settings(HOSTS["trl"], objective="pkpo"))
    hook = guard_of(trainer)._session._hook
    for name in ("_prepare_inputs", "_generate_and_score_completions"):
        assert getattr(copied, name).__self__ is copied
        assert getattr(copied, name).__func__ is getattr(type(copied), name)
    hook.install()  # as where training was interrupted
    again = copy.deepcopy(trainer)
    again.train()
    assert [probe.step for probe in guard_of(again).guard.history] == [0, 2]
    assert "_prepare_inputs" in vars(trainer)


def as_rows(rows):
    return {"rows": rows}


def test_a_trainer_that_was_saved_before_training_guards_itself(tmp_path):
    """After it, torch.save refuses the scheduler, and TRL's trainers at any time."""
    GradientState._reset_state()  # it has weak references once any trainer has trained
    trainer = plain(tmp_path)
    trainer.data_collator, trainer.verify = as_rows, near_answer
    trainer.add_callback(HOSTS["transformers"].callback(trainer, **settings(HOSTS["transformers"])))
    again = saved(trainer)
    for one in (again, trainer):
        set_seed(0)  # the trainer's own sampling
        one.train()
    assert same_weights(weights(trainer), weights(again))
    histories = [guard_of(one).guard.history for one in (trainer, again)]
    assert [[p.pass_at_1 for p in found] for found in histories] == [
        [p.pass_at_1 for p in histories[0]]
    ] * 2


@pytest.mark.parametrize("name", [TRL, "transformers"])
def test_a_callback_that_has_seen_a_run_is_pickled_with_its_settings(tmp_path, name):
    trainer, _ = trained(name, tmp_path, settings(HOSTS[name]))
    callback = guard_of(trainer)
    again = saved(callback)
    assert again.config == callback.config
    assert again._arguments.reward_funcs is callback._arguments.reward_funcs


@pytest.mark.parametrize("copied", [copy.deepcopy, saved])
def test_on_lightning_a_copy_goes_on_as_from_a_checkpoint(tmp_path, copied):
    callback, module = guard(journal=True), Automatic()
    trainer = fit(tmp_path, module, callback, steps=2)
    again = copied(trainer)
    (own,) = [c for c in again.callbacks if isinstance(c, type(callback))]
    again.fit_loop.epoch_loop.max_steps = 4
    again.fit(copy.deepcopy(module), batches())
    assert steps_of(callback) == [0, 2]
    assert steps_of(own) == [4]
    assert own.guard.run_id == callback.guard.run_id
    assert [look["step"] for look in read_run(tmp_path).looks] == [0, 2, 4]
