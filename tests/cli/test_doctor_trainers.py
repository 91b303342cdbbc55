"""``passk-guard doctor`` trains for real, and finds what it is there to find."""

from extras import needs

needs("trl", "lightning")

import inspect
import os
import pkgutil
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
import torch
from places import ROOT
from transformers import TrainingArguments
from trl_runs import held_out, make_trainer

from passk_guard import PassKGuard, identity, integrations
from passk_guard.cli import doctor, tiny_trainers
from passk_guard.cli.doctor import TRAINERS, examine
from passk_guard.integrations import lightning, transformers, trl

pytestmark = pytest.mark.filterwarnings("ignore")  # as where the doctor trains

INSTALLED = [name for name, host in TRAINERS.items() if host.make and not doctor.missing(name)]


def test_every_adapter_is_examined_and_can_do_what_is_said_of_it():
    adapters = {"lightning": lightning, "transformers": transformers, "trl": trl}
    public = {m.name for m in pkgutil.iter_modules(integrations.__path__) if m.name[0] != "_"}
    public.remove("folder")  # no trainer's
    assert {host.adapter for host in TRAINERS.values()} == set(adapters) == public
    for host in TRAINERS.values():
        takes = inspect.signature(adapters[host.adapter].PassKGuardCallback).parameters
        assert {"settings", "objective"} <= set(takes)
        assert ("PassKObjective" in host.sees) == ("anchor_prompts" in takes)


def test_the_whole_command_in_a_process_of_its_own_leaves_no_trace(tmp_path):
    """Not in the folder, not in the home, nor on the screen beside its own output."""
    here, home, temporary = (tmp_path / name for name in ("here", "home", "temporary"))
    for folder in (here, home, temporary):
        folder.mkdir()
    result = subprocess.run(
        [sys.executable, "-m", "passk_guard", "doctor"],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=here,
        env={
            **{name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS")},
            **{"PYTHONPATH": str(ROOT), "HOME": str(home), "TMPDIR": str(temporary)},
            **{"WORLD_SIZE": "2", "RANK": "1"},  # as if within a launcher
            "PYTHONIOENCODING": "ascii",
        },
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    assert result.stdout.count(" identical ") == len(INSTALLED)
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "All is well" in result.stdout
    assert [str(p) for folder in (here, home, temporary) for p in folder.rglob("*")] == []


@pytest.mark.parametrize(
    "name", [name for name in INSTALLED if name not in ("TRL RLOOTrainer", "pytorch_lightning")]
)
def test_a_guard_that_disturbs_the_random_generators_is_found_out(name, monkeypatch):
    real = PassKGuard.probe

    def careless(self, step):
        found = real(self, step)
        torch.rand(1)
        return found

    monkeypatch.setattr(PassKGuard, "probe", careless)
    found = examine(name, True)
    assert found.verdict == "DIFFERENT", found.reason
    assert "tensors differ after training, the first is " in found.reason


def test_training_that_is_not_repeatable_is_said_and_is_no_failure(monkeypatch):
    def noisy(out, guard):
        torch.seed()
        return tiny_trainers.make_transformers(out, guard)

    host = replace(TRAINERS["transformers.Trainer"], make=noisy)
    monkeypatch.setitem(TRAINERS, "transformers.Trainer", host)
    found = examine("transformers.Trainer", True)
    assert found.verdict == "cannot tell", found.reason


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_a_trainer_that_fails_is_a_finding(error, monkeypatch):
    def broken(out, guard):
        raise error("no kernel image")

    monkeypatch.setitem(TRAINERS, "lightning", replace(TRAINERS["lightning"], make=broken))
    found = examine("lightning", True)
    assert found.verdict == "failed"
    assert found.reason == f"{error.__name__}: no kernel image"


def test_an_adapter_that_cannot_be_imported_is_a_finding(monkeypatch):
    monkeypatch.setitem(sys.modules, "passk_guard.integrations.trl", None)
    found = examine("TRL GRPOTrainer", False)
    assert found.verdict == "failed"
    assert "passk_guard.integrations.trl" in found.reason
    assert examine("transformers.Trainer", False).verdict == "not tried"


@pytest.mark.parametrize(
    ("name", "without", "verdict"),
    [
        ("transformers.Trainer", "accelerate", "not installed"),
        ("lightning", "transformers", "not tried"),
    ],
)
def test_what_is_not_installed_is_not_tried(name, without, verdict, monkeypatch):
    monkeypatch.setattr(doctor, "_is_installed", lambda module: module != without)
    found = examine(name, True)
    assert found.verdict == verdict
    assert without in found.reason


def test_a_batch_is_not_split_over_all_the_gpus_of_the_machine(tmp_path):
    def eight(output_dir, **_):
        args = TrainingArguments(output_dir, use_cpu=True)
        args._n_gpu = 8  # what it finds on a machine with eight
        return args

    assert eight(str(tmp_path)).n_gpu == 8
    assert tiny_trainers._arguments(eight, str(tmp_path)).n_gpu == 1


def test_the_example_in_the_reference_runs(tmp_path):
    example = inspect.getdoc(identity.assert_bit_identical).split("::\n")[-1]
    names = {
        "my_trainer": lambda max_steps: make_trainer(tmp_path, steps=max_steps),
        "held_out": held_out(),
        "PassKGuardCallback": trl.PassKGuardCallback,
        "assert_bit_identical": identity.assert_bit_identical,
    }
    exec(textwrap.dedent(example), names)
