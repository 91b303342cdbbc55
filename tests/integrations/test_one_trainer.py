"""A callback guards the trainer that it has met, over all of its runs, and no other."""

from extras import needs

needs("trl", "lightning")

import os
import re
import subprocess
import sys
import warnings

import pytest
from hosts import HOSTS, lightning_trainer, model, own_loss, settings
from lightning_runs import Automatic, batches, fit, guard
from places import ROOT
from trl_runs import GUARD, held_out, make_trainer

from passk_guard.integrations import transformers as for_transformers
from passk_guard.integrations import trl as for_trl
from passk_guard.reporting.read_run import read_run
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


SPAWNED = """
import sys
from lightning_runs import Automatic, fit, guard

callback = guard(journal=True)
trainer = fit(sys.argv[1], Automatic(), callback, strategy="ddp_fork", devices=1)
print(float(trainer.callback_metrics["passk_guard/track"]))
callback.guard
"""


@pytest.mark.long
def test_after_training_in_other_processes_it_is_said_where_the_looks_are(tmp_path):
    path = os.pathsep.join([str(ROOT), *sys.path])
    found = subprocess.run(
        [sys.executable, "-c", SPAWNED, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert "ddp_fork and ddp_notebook train in processes of their own" in found.stderr
    looks = read_run(tmp_path).looks
    assert [look["step"] for look in looks] == [0, 2, 4]
    assert str(looks[-1]["track"])[:4] in found.stdout


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
    slow = {"controller": "integral", "floor": 0.99}  # the other one would be at 1 at once
    acting = settings(HOSTS[name], action="mix", **slow, **HOSTS[name].mix)
    callback = kind(trainer, **acting)
    trainer.add_callback(callback)
    trainer.train()
    weight = callback.guard.pass1_weight
    trainer.train()
    assert [probe.step for probe in callback.guard.history] == [0, 2, 0, 2]
    assert not callback.guard.failures
    assert callback.guard.pass1_weight > weight > 0
    assert [look["step"] for look in read_run(tmp_path).looks] == [0, 2]  # of the second run


def test_a_model_that_training_makes_anew_is_the_one_that_is_measured(tmp_path):
    """With ``model_init``, ``train()`` trains another model than the trainer had before."""

    def anew():
        made = model()
        made.generation_config.max_new_tokens = 2
        return made

    settings = {"disable_tqdm": True, "learning_rate": 0.01}
    trainer = own_loss.make_trainer(anew(), str(tmp_path), steps=4, **settings)
    trainer.model_init = anew
    callback = for_transformers.PassKGuardCallback(
        trainer, prompts=held_out(), **HOSTS["transformers"].settings, **GUARD
    )
    trainer.add_callback(callback)
    for _ in range(2):
        trainer.train()
        found = callback.guard.history
        assert [probe.step for probe in found] == [0, 2, 4]
        measured = dict(callback.guard.policy.parameters())
        assert all(measured[name] is p for name, p in trainer.model.named_parameters())
        assert found[-1].drift.change != 0


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


def test_signatures_hold_the_settings_of_the_config():
    command = [sys.executable, str(ROOT / ".ci" / "keywords.py"), "--check"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, f"{found.stdout}\nRun: make keywords"


def test_a_signature_that_has_gone_stale_is_seen():
    scope = {"__file__": str(ROOT / ".ci" / "keywords.py"), "__name__": "keywords"}
    exec((ROOT / ".ci" / "keywords.py").read_text(), scope)
    text = (ROOT / "integrations" / "trl.py").read_text()
    assert scope["written"](text) == text
    stale = text.replace("        k: int = 8,\n", "        k: int = 9,\n").replace(
        "            seed=seed,\n", ""
    )
    assert stale != text
    assert scope["written"](stale) == text
