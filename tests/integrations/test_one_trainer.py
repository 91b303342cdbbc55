"""A callback guards the trainer that it has met, over all of its runs, and no other."""

from extras import needs

needs("trl", "lightning")

import itertools
import re
import warnings

import pytest
import torch
from hosts import HOSTS, lightning_trainer, model, own_loss, settings
from lightning_runs import Automatic, batches, fit, guard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerCallback
from transformers.trainer import ALL_HYPERPARAMETER_SEARCH_BACKENDS
from transformers.trainer_utils import HPSearchBackend
from trl_runs import GUARD, held_out, make_trainer, near_answer

from passk_guard import PassKGuardWarning
from passk_guard.integrations import transformers as for_transformers
from passk_guard.integrations import trl as for_trl
from passk_guard.reporting.page import page
from passk_guard.reporting.read_run import read_run
from passk_guard.reporting.summary import summary
from passk_guard.session import Session

ANOTHER = "guards another trainer.*Make a new PassKGuardCallback for each trainer"


def plain(folder):
    return own_loss.make_trainer(model(), str(folder), steps=2, disable_tqdm=True)


def trl(tmp_path, **given):
    return make_trainer(tmp_path, steps=2, **given)


@pytest.mark.parametrize("name", ["trl", "transformers"])
def test_a_sweep_that_reuses_a_callback_is_refused(tmp_path, name):
    make = {"trl": trl, "transformers": plain}[name]
    kind = {"trl": for_trl, "transformers": for_transformers}[name].PassKGuardCallback
    first, second = make(tmp_path / "1"), make(tmp_path / "2")
    callback = kind(first, prompts=held_out(), **HOSTS[name].settings, **GUARD)
    first.add_callback(callback)
    first.train()
    looks = len(callback.guard.history)
    second.add_callback(callback)
    with pytest.raises(ValueError, match=ANOTHER):
        second.train()
    assert len(callback.guard.history) == looks


def test_the_same_in_the_other_form(tmp_path):
    callback = for_trl.PassKGuardCallback(prompts=held_out(), **GUARD)
    trl(tmp_path / "1", callbacks=[callback]).train()
    with pytest.raises(ValueError, match=ANOTHER):
        trl(tmp_path / "2", callbacks=[callback])


def test_the_same_on_lightning_where_a_module_is_another_model(tmp_path):
    module, callback = Automatic(), guard()
    trainer = fit(tmp_path, module, callback)
    with pytest.raises(ValueError, match=ANOTHER):
        trainer.fit(Automatic(), batches())
    with pytest.raises(ValueError, match=ANOTHER):
        lightning_trainer(tmp_path, [callback], max_steps=2).fit(module, batches())
    assert len(callback.guard.history) == 3


def test_a_second_fit_in_lightning_goes_on_with_its_guard(tmp_path):
    module, callback = Automatic(), guard()
    trainer = fit(tmp_path, module, callback)
    trainer.fit_loop.epoch_loop.max_steps = 8
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*no guard state in this checkpoint")
        trainer.fit(module, batches())
    assert [probe.step for probe in callback.guard.history] == [0, 2, 4, 6, 8]


def test_where_no_guard_is_left_it_is_said_where_the_looks_are():
    """As after training in other processes, from which no callback comes back."""
    with pytest.raises(RuntimeError, match="ddp_fork and ddp_notebook train in processes of their"):
        guard().guard  # noqa: B018


def test_a_callback_that_was_not_told_its_trainer_finds_it(tmp_path):
    callback = for_trl.PassKGuardCallback(prompts=held_out(), **GUARD)
    trainer = trl(tmp_path)
    trainer.add_callback(callback)
    trainer.train()
    assert [probe.step for probe in callback.guard.history] == [0, 2]


@pytest.mark.parametrize("name", ["trl", "transformers"])
def test_a_trainer_may_train_twice(tmp_path, name):
    """In an intervention, too: the controller's clock does not run backwards."""
    trainer = {"trl": trl, "transformers": plain}[name](tmp_path)
    kind = {"trl": for_trl, "transformers": for_transformers}[name].PassKGuardCallback
    acting = settings(HOSTS[name], action="mix", floor=0.99, **HOSTS[name].mix)
    callback = kind(trainer, **acting)
    trainer.add_callback(callback)
    trainer.train()
    weight = callback.guard.pass1_weight
    trainer.train()
    assert [probe.step for probe in callback.guard.history] == [0, 2, 0, 2]
    assert not callback.guard.failures
    assert callback.guard.pass1_weight >= weight > 0
    assert [look["step"] for look in read_run(tmp_path).looks] == [0, 2, 0, 2]


def anew():
    made = model()
    made.generation_config.max_new_tokens = 2
    return made


def guarded(tmp_path, steps=4, kind=None, guard=GUARD, **settings):
    settings = {"disable_tqdm": True, "learning_rate": 0.01, **settings}
    trainer = own_loss.make_trainer(anew(), str(tmp_path), steps=steps, **settings)
    trainer.__class__ = kind or trainer.__class__
    trainer.verify = near_answer
    callback = for_transformers.PassKGuardCallback(
        trainer, prompts=held_out(), **HOSTS["transformers"].settings, **guard
    )
    trainer.add_callback(callback)
    return trainer, callback


def test_a_model_that_training_makes_anew_is_the_one_that_is_measured(tmp_path):
    """With ``model_init``, ``train()`` trains another model than the trainer had before."""
    trainer, callback = guarded(tmp_path)
    trainer.model_init = anew
    for _ in range(2):
        trainer.train()
        found = callback.guard.history
        assert [probe.step for probe in found] == [0, 2, 4]
        measured = dict(callback.guard.policy.parameters())
        assert all(measured[name] is p for name, p in trainer.model.named_parameters())
        assert found[-1].drift.change != 0


class Trial(dict):
    """What Optuna's backend gives to ``train``, which takes a dict for one, too."""

    def __init__(self, number):
        self.number, self.params = number, {}


class Search:
    """A backend that counts, in the place of Optuna's."""

    def ensure_available(self):
        pass

    def run(self, trainer, n_trials, direction):
        for number in range(n_trials):
            trainer.train(trial=Trial(number))


class Elsewhere(own_loss.PassKTrainer):
    def _get_output_dir(self, trial):
        return f"{super()._get_output_dir(trial)}-kept"


@pytest.mark.long
@pytest.mark.needs("wandb")  # for a dict to be taken as a trial
@pytest.mark.parametrize(
    ("kind", "hp_name", "folder"),
    [(None, None, "run-{}"), (Elsewhere, lambda trial: f"t{trial.number}", "t{}-kept")],
)
def test_each_trial_of_a_search_has_state_and_journal_in_its_own_folder(
    tmp_path, monkeypatch, kind, hp_name, folder
):
    backend = HPSearchBackend.OPTUNA
    monkeypatch.setitem(ALL_HYPERPARAMETER_SEARCH_BACKENDS, backend, Search)
    trainer, callback = guarded(tmp_path, 2, kind, save_strategy="steps", save_steps=2)
    trainer.model_init, runs, starts = anew, set(), set()
    rates = {"hp_space": lambda trial: {"learning_rate": 10.0**-trial.number}, "hp_name": hp_name}
    trainer.hyperparameter_search(**rates, n_trials=2, backend="optuna")
    for number in range(2):
        found = read_run(tmp_path / folder.format(number))
        assert [look["step"] for look in found.looks] == [0, 2]
        saved = found.path.parent / "checkpoint-2"
        assert {"passk_guard.pt", "model.safetensors"} <= {path.name for path in saved.iterdir()}
        runs.add(torch.load(saved / "passk_guard.pt")["_run"]["state"]["id"])
        starts.add(found.probes[0]["pass_at_1"])
    assert len(runs) == 2
    assert len(starts) == 1  # nothing is left of the trial before
    assert [probe.step for probe in callback.guard.history] == [0, 2]
    assert not list(tmp_path.glob("checkpoint-*")) + list(tmp_path.glob("passk_guard*"))


@pytest.mark.long
def test_a_run_that_starts_again_keeps_its_first_look_and_the_alarm(tmp_path):
    """As ``auto_find_batch_size`` makes it, at the first step and after the third."""
    trainer, _ = guarded(
        tmp_path, guard={**GUARD, "floor": 0.99, "action": []}, auto_find_batch_size=True
    )
    loss, calls = trainer.compute_loss, itertools.count()

    def short_of_memory(*args, **kwargs):
        if next(calls) in (0, 4):
            raise RuntimeError("CUDA out of memory.")
        return loss(*args, **kwargs)

    trainer.compute_loss = short_of_memory
    trainer.train()
    found = read_run(tmp_path)
    assert [look["step"] for look in found.looks] == [0, 2, 0, 2, 4]
    assert [look["step"] for look in found.alarms] == [0]
    assert (found.resumed, summary(found)["step"]) == ((0, 0), 4)
    assert [path.name for path in tmp_path.glob("passk_guard*")] == ["passk_guard.jsonl"]
    page(found)


@pytest.mark.long
def test_a_checkpoint_resumed_in_the_same_process_brings_its_own_state(tmp_path):
    trainer, callback = guarded(tmp_path / "one", save_strategy="steps", save_steps=2)
    trainer.train()
    once = callback.guard.history
    saved = tmp_path / "elsewhere"
    (tmp_path / "one" / "checkpoint-2").rename(saved)
    trainer.args.output_dir = str(tmp_path / "two")
    trainer.train(resume_from_checkpoint=str(saved))
    assert [probe.step for probe in callback.guard.history] == [4]
    assert callback.guard.history[0].track == once[-1].track
    assert [look["step"] for look in read_run(tmp_path / "one").looks] == [0, 2, 4]
    assert (tmp_path / "two" / "checkpoint-4" / "passk_guard.pt").exists()
    assert read_run(tmp_path / "two").resumed == ()
    (saved / "passk_guard.pt").unlink()
    with pytest.warns(PassKGuardWarning, match="no guard state.*starts afresh"):
        trainer.train(resume_from_checkpoint=str(saved))
    assert callback.guard.history[0].step == 2  # the first look that this guard takes


def test_each_run_of_a_trainer_has_a_layout_in_tensorboard(tmp_path):
    trainer, _ = guarded(tmp_path, 2, report_to="tensorboard")
    for _ in range(2):
        trainer.train()
    (folder,) = {path.parent for path in tmp_path.rglob("*tfevents*")}
    events = EventAccumulator(str(folder), purge_orphaned_data=False).Reload()
    assert len(events.Tensors("custom_scalars__config__")) == 2


def test_a_run_that_was_cut_short_leaves_no_objective_behind(tmp_path):
    """The next one builds its guard anew, as a resume does."""
    callback = for_trl.PassKGuardCallback(prompts=held_out(), objective="pkpo", **GUARD)
    saving = {"save_strategy": "steps", "save_steps": 1}
    trainer = make_trainer(tmp_path, steps=3, callbacks=[callback], **saving)

    class Cut(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 2:
                raise KeyboardInterrupt

    trainer.add_callback(Cut)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.remove_callback(Cut)
    trainer.train(resume_from_checkpoint=True)
    assert "_prepare_inputs" not in vars(trainer)


def test_the_table_of_events_names_methods_that_there_are():
    rows = re.findall(r"^    ``(.*?)``  +``(\w+)`` +``(\w+)``$", Session.__doc__, re.MULTILINE)
    assert len(rows) == 7
    hosts = (for_trl.PassKGuardCallback, HOSTS["lightning"].callback)
    for ours, *theirs in rows:
        assert all(hasattr(Session, name) for name in ours.split("``, ``"))
        for host, event in zip(hosts, theirs, strict=True):
            assert event in {name for kind in host.__mro__[:-3] for name in vars(kind)}


def test_a_policy_without_parameters_takes_no_term_on_anchors(tmp_path):
    class Remote:
        generate = log_probs = gramian = None

    given = {**HOSTS["transformers"].settings, **GUARD, **HOSTS["transformers"].mix}
    given |= {"prompts": held_out(), "policy": lambda model: Remote(), "action": "mix"}
    with pytest.raises(ValueError, match=r"action='mix' .* the policy has no parameters\(\) here"):
        for_transformers.PassKGuardCallback(plain(tmp_path), **given)
