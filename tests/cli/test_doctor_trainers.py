"""``passk-guard doctor`` trains for real, and finds what it is there to find."""

from extras import needs
from places import ROOT

needs("trl", "lightning")

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from trl import GRPOTrainer

from passk_guard.cli import doctor, support, tiny_runs
from passk_guard.cli.main import main
from passk_guard.cli.quiet import alone, hushed
from passk_guard.runtime import isolation

TRAINERS = list(tiny_runs.RUNS)
AS_INSTALLED = [t.trainer for t in support.supports() if t.installed and t.trainer in TRAINERS]


@pytest.fixture
def only(monkeypatch):
    """Leave one trainer's run, or put another in its place."""

    def leave(name, run=None):
        monkeypatch.setattr(doctor, "RUNS", {name: run or tiny_runs.RUNS[name]})

    return leave


def examined(capsys, *options):
    """Exit status, and the object that was printed."""
    status = main(["doctor", "--json", *options])
    return status, json.loads(capsys.readouterr().out)


def test_every_trainer_has_a_run_and_an_adapter():
    found = {trainer.trainer for trainer in support.supports()} - {"other TRL trainers"}
    assert found <= set(TRAINERS)
    assert all(trainer.usable for trainer in support.supports())


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
            **{"COLUMNS": "80", "WORLD_SIZE": "2", "RANK": "1"},  # as if within a launcher
        },
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    assert result.stdout.count("identical") == result.stdout.count("acts") == len(AS_INSTALLED)
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "All is well" in result.stdout
    assert [str(p) for folder in (here, home, temporary) for p in folder.rglob("*")] == []


@pytest.mark.parametrize("name", AS_INSTALLED)
def test_a_guard_that_disturbs_the_random_generators_is_found_out(name, only, monkeypatch, capsys):
    monkeypatch.setattr(isolation, "kept_rng", contextlib.nullcontext)
    only(name)
    status, found = examined(capsys)
    (verdict,) = found["identity"]
    assert (status, verdict["verdict"]) == (1, "DIFFERENT")
    assert verdict["remedy"] is None
    assert f"{name}: with the guard" in found["problems"][0]


def test_training_that_is_not_repeatable_is_said_and_is_no_failure(only, capsys):
    runs = itertools.count()

    def run(out, how):
        found = tiny_runs.trainer(out, how)
        noisy = {name: weight + next(runs) for name, weight in found.end.items()}
        return replace(found, end=noisy)

    only("transformers.Trainer", run)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "! cannot tell" in out
    assert "two runs without the guard differ" in out
    assert "where training is not repeatable, nothing can be told" in out


def test_one_trainer_that_fails_does_not_keep_the_next_from_being_tried(monkeypatch, capsys):
    def broken(out, how):
        raise RuntimeError("CUDA error: no kernel image is available")

    runs = {"TRL GRPOTrainer": broken, "transformers.Trainer": tiny_runs.trainer}
    monkeypatch.setattr(doctor, "RUNS", runs)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"TRL GRPOTrainer .*✗ failed", out)
    assert re.search(r"transformers.Trainer .*✓ identical .*✓ acts", out)
    assert "TRL GRPOTrainer: RuntimeError: CUDA error: no kernel image" in out


def test_an_adapter_that_cannot_be_imported_is_shown_with_its_reason(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "passk_guard.integrations.trl", None)
    status, found = examined(capsys, "--quick")
    assert status == 1
    by_name = {trainer["trainer"]: trainer for trainer in found["trainers"]}
    grpo = by_name["TRL GRPOTrainer"]
    assert (grpo["installed"], grpo["usable"]) == (True, False)
    assert "passk_guard.integrations.trl" in grpo["reason"]
    assert "\n" not in grpo["reason"]
    assert by_name["transformers.Trainer"]["usable"]
    assert any(problem.startswith("TRL GRPOTrainer: ") for problem in found["problems"])


def test_a_trainer_without_what_the_adapter_replaces_is_unusable(monkeypatch):
    monkeypatch.delattr(GRPOTrainer, "_calculate_rewards")
    found = {trainer.trainer: trainer for trainer in support.supports()}
    assert not found["TRL GRPOTrainer"].usable
    assert "has no _calculate_rewards" in found["TRL GRPOTrainer"].reason
    assert found["TRL RLOOTrainer"].usable


def test_trainer_without_accelerate_counts_as_not_installed(monkeypatch):
    real = support.is_installed
    monkeypatch.setattr(support, "is_installed", lambda n: n != "accelerate" and real(n))
    found = {trainer.trainer: trainer for trainer in support.supports()}
    assert not found["transformers.Trainer"].installed
    assert found["transformers.Trainer"].reason == "accelerate not installed"


def test_what_each_trainer_can_do_is_what_its_tests_rely_on():
    """The same conditions under which the tests of these features are left out."""
    from test_sharded import NEWER
    from trl_runs import TAKES_ASYNC

    found = {trainer.trainer: trainer for trainer in support.supports()}
    grpo, plain = found["TRL GRPOTrainer"], found["transformers.Trainer"]
    assert ("async rewards" in grpo.features) == TAKES_ASYNC
    assert ("FSDP2" in grpo.features) == ("FSDP2" in plain.features) == NEWER
    assert ("FSDP2" in grpo.lacks) != NEWER
    assert found["other TRL trainers"].remedies == {}
    assert set(grpo.remedies) == set(plain.remedies) == {"mix", "adjust_k"}
    assert "anchor_prompts" in plain.remedies["mix"]
    assert grpo.remedies["mix"] == ""


def test_a_batch_is_not_split_over_all_the_gpus_of_the_machine(tmp_path):
    from transformers import TrainingArguments

    args = TrainingArguments(str(tmp_path), use_cpu=True)
    args._n_gpu = 8  # what it finds on a machine with eight
    assert args.n_gpu == 8
    assert tiny_runs._one_device(args).n_gpu == 1


def test_lightning_alone_is_tried_on_a_model_in_plain_torch(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny_runs, "is_installed", lambda name: False)
    with alone(), hushed():
        runs = [tiny_runs.lightning(tmp_path, how) for how in ("plain", "watched", "remedied")]
    assert set(runs[0].end) == {"model.hidden.weight", "model.out.weight", "model.out.bias"}
    changed = [
        bool((run.end["model.out.weight"] != runs[0].end["model.out.weight"]).any()) for run in runs
    ]
    assert changed == [False, False, True]
    assert not runs[1].guard.failures
    assert len(runs[1].guard.history) == len(tiny_runs.LOOKS)
