"""``passk-guard doctor`` where nothing but the core is installed, and its parts."""

import json
import os
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from passk_guard.cli import doctor
from passk_guard.cli.doctor import TRAINERS, Finding, fresh_process
from passk_guard.cli.main import main


@pytest.fixture
def bare(monkeypatch):
    """No trainer is found, and nothing is started."""

    @contextmanager
    def here():
        yield SimpleNamespace(submit=lambda f, *a: SimpleNamespace(result=lambda: f(*a)))

    monkeypatch.setattr(doctor, "fresh_process", here)
    monkeypatch.setattr(doctor, "_is_installed", lambda name: False)


def test_nothing_but_the_core_is_no_failure(capsys, bare):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"torch {torch.__version__.partition('+')[0]}" in out
    assert "Not installed: TRL GRPOTrainer, " in out
    assert "tiny model" not in out
    assert out.endswith("The core works; no trainer is installed.\n")


def test_json_is_all_that_is_printed(capsys, bare):
    assert main(["doctor", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert set(found) == {"versions", "trainers", "problems"}
    assert {trainer["verdict"] for trainer in found["trainers"]} == {"not installed"}
    assert err == ""


@pytest.mark.parametrize("option", ["--quick", "--skip-identity"])
def test_the_training_can_be_left_out(option, monkeypatch, bare):
    asked = []

    def examine(trainer, identity):
        asked.append(identity)
        return Finding(trainer, "not tried")

    monkeypatch.setattr(doctor, "examine", examine)
    assert main(["doctor"]) == main(["doctor", option]) == 0
    assert asked == [True] * len(TRAINERS) + [False] * len(TRAINERS)


@pytest.mark.parametrize(
    ("verdict", "status", "said"),
    [
        ("identical", 0, "All is well"),
        ("cannot tell", 0, "the check is inconclusive"),
        ("not tried", 0, "was not tried"),
        ("failed", 1, "This does not work: TRL GRPOTrainer: why"),
        ("DIFFERENT", 1, "This does not work: TRL GRPOTrainer: why"),
    ],
)
def test_only_what_is_installed_and_does_not_work_is_a_problem(
    verdict, status, said, monkeypatch, capsys, bare
):
    def examine(trainer, identity):
        found = verdict if trainer == "TRL GRPOTrainer" else "not installed"
        return Finding(trainer, found, "why")

    monkeypatch.setattr(doctor, "examine", examine)
    assert main(["doctor"]) == status
    assert said in " ".join(capsys.readouterr().out.split())


def test_a_folder_that_is_named_like_a_package_is_none(tmp_path, monkeypatch):
    (tmp_path / "some_trainer").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not doctor._is_installed("some_trainer")
    assert doctor._is_installed("passk_guard")


def test_the_fresh_process_is_silent_offline_and_outside_the_launcher(monkeypatch, capfd):
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with fresh_process() as process:
        process.submit(os.write, 1, b"a C library").result()
        names = [process.submit(os.getenv, n) for n in ("WORLD_SIZE", "SLURM_NTASKS")]
        assert [name.result() for name in names] == [None, None]
        assert process.submit(os.getenv, "HF_HUB_OFFLINE").result() == "1"
        assert process.submit(torch.are_deterministic_algorithms_enabled).result()
        dying = SimpleNamespace(submit=lambda *_: process.submit(os._exit, 1))
        found = doctor._examine_in(dying, "lightning", True)
    assert found.verdict == "failed"
    assert "died" in found.reason
    assert capfd.readouterr().out == ""
