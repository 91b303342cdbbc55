"""``passk-guard doctor`` where nothing but the core is installed, and its parts."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch
from places import ROOT

from passk_guard.cli import doctor, quiet, support, tables, versions
from passk_guard.cli.identity import Verdict, check_identity, compare
from passk_guard.cli.main import main
from passk_guard.cli.support import Support
from passk_guard.cli.tiny_runs import LOOKS, Trained
from passk_guard.cli.versions import Package, packages


@pytest.fixture
def nothing_to_train(monkeypatch):
    """No trainer is found, whatever is installed."""
    monkeypatch.setattr(support, "is_installed", lambda name: False)


def test_without_metadata_ranges_are_unknown_and_said_to_be(monkeypatch, capsys, nothing_to_train):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    found = {package.name: package for package in packages()}
    assert found["torch"].mark == found["Python"].mark == "unknown"
    assert main(["doctor", "--quick"]) == 0
    assert "the releases that it\nsupports are unknown" in capsys.readouterr().out


def test_accelerators_go_by_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"Card {i}")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert versions.accelerators() == ["Card 0 (CUDA 12.8)", "Card 1 (CUDA 12.8)"]
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert versions.accelerators()[0] == "Card 0 (ROCm 6.4)"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert versions.accelerators() == []


def trained(end, start=0.0, looks=LOOKS, failures=(), objective=None, pass1_weight=0.0):
    history = [SimpleNamespace(step=step) for step in looks]
    guard = SimpleNamespace(
        history=history, failures=failures, objective=objective, pass1_weight=pass1_weight
    )
    return Trained({"w": torch.tensor(start)}, {"w": torch.tensor(end)}, guard)


def test_equal_weights_that_moved_are_identical():
    assert compare(trained(1.0), trained(1.0), trained(1.0)) == ("identical", None)


def test_one_bit_is_a_difference():
    verdict, reason = compare(trained(0.0, start=1.0), trained(0.0), trained(-0.0))
    assert verdict == "DIFFERENT"
    assert "1 of 1 trained tensors differ, such as w" in reason


def test_training_that_is_not_repeatable_tells_nothing():
    verdict, reason = compare(trained(1.0), trained(2.0), trained(1.0))
    assert verdict == "cannot tell"
    assert "not repeatable on this machine" in reason


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        ([trained(0.0)] * 3, "changed no weight"),
        ([trained(float("nan"))] * 3, "made them NaN"),
        ([trained(1.0)] * 2 + [trained(1.0, looks=[0])], "did not probe at steps"),
        (
            [trained(1.0)] * 2 + [trained(1.0, failures=[SimpleNamespace(reason="no memory")])],
            "1 of 4 probes were lost: no memory",
        ),
    ],
)
def test_a_check_that_could_not_fail_has_failed(runs, reason):
    verdict, why = compare(*runs)
    assert verdict == "failed"
    assert reason in why


@pytest.mark.parametrize(
    ("remedied", "reason"),
    [
        (trained(2.0, objective="pkpo", pass1_weight=0.2), None),
        (trained(2.0, objective=None, pass1_weight=0.2), "cannot be installed in this release"),
        (trained(2.0, objective="pkpo", pass1_weight=0.0), "did not set in"),
        (trained(1.0, objective="pkpo", pass1_weight=0.2), "training went on as without it"),
        (trained(2.0, failures=[SimpleNamespace(reason="oops")]), "a probe was lost: oops"),
    ],
)
def test_a_remedy_must_be_seen_to_act(remedied, reason):
    runs = {"plain": trained(1.0), "watched": trained(1.0), "remedied": remedied}
    verdict = check_identity("here", lambda out, how: runs[how])
    assert verdict.verdict == "identical"
    assert verdict.remedy == ("failed" if reason else "acts")
    assert verdict.sound == (reason is None)
    assert (reason or "") in (verdict.reason or "")


@pytest.mark.parametrize("error", [RuntimeError("out of\n memory"), SystemExit("out of memory")])
def test_a_run_that_fails_is_a_verdict(error):
    def run(out, how):
        raise error

    verdict = check_identity("here", run)
    assert (verdict.verdict, verdict.sound) == ("failed", False)
    assert verdict.reason == f"{type(error).__name__}: out of memory"


def test_nothing_but_the_core_is_no_failure(capsys, nothing_to_train):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    trainers = out.split("What the guard can do here")[1].splitlines()
    assert (
        sum(line.rstrip().endswith(" not installed") for line in trainers) == 3
    )  # TRL's is one row
    assert "bit by bit" not in out
    assert out.endswith("The core works; no trainer is installed.\n")


def test_a_folder_that_is_named_like_a_package_is_none(tmp_path, monkeypatch):
    (tmp_path / "some_trainer").mkdir()
    (tmp_path / "some_package").mkdir()
    (tmp_path / "some_package" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert not support.is_installed("some_trainer")
    assert support.is_installed("some_package")


def test_json_is_all_that_is_printed(capfd, nothing_to_train):
    assert main(["doctor", "--json"]) == 0
    out, err = capfd.readouterr()
    found = json.loads(out)
    assert set(found) == {
        *("packages", "accelerators", "trainers", "reporters", "identity", "problems")
    }
    assert [set(package) for package in found["packages"]] == [
        {"name", "installed", "supported", "mark", "mend"}
    ] * len(found["packages"])
    assert found["identity"] == found["problems"] == []
    assert not any(trainer["installed"] for trainer in found["trainers"])
    assert err == ""


OLD = Package("numpy", "1.2", ">=1.26", "too old", "pip install 'numpy>=1.26'")
BROKEN = Support("a trainer", usable=False, reason="ImportError: torch is too new")
DIFFERENT = Verdict("a trainer", "DIFFERENT", None, "1 tensor differs", "cpu", 1.0)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (([OLD], [], []), "numpy 1.2 is too old: pip install 'numpy>=1.26'"),
        (([], [BROKEN], []), "a trainer: ImportError: torch is too new"),
        (([], [], [DIFFERENT]), "a trainer: 1 tensor differs"),
    ],
)
def test_what_is_installed_and_does_not_work_is_a_problem(found, problem):
    assert doctor.problems(*found) == [problem]


def test_what_is_missing_untested_or_cannot_be_told_is_no_problem():
    missing = replace(OLD, installed=None, mark="not installed")
    absent = replace(BROKEN, installed=False)
    unsure = replace(DIFFERENT, verdict="cannot tell")
    assert doctor.problems([missing, replace(OLD, mark="too new")], [absent], [unsure]) == []


def test_problems_are_shown_and_end_in_status_1(monkeypatch, capsys, nothing_to_train):
    monkeypatch.setattr(doctor, "packages", lambda: [OLD])
    assert main(["doctor"]) == 1
    assert "1 problem\n\n✗ numpy 1.2 is too old" in capsys.readouterr().out


@pytest.mark.parametrize("rich", [pytest.param(True, marks=pytest.mark.needs("rich")), False])
def test_tables_are_no_wider_than_the_terminal(rich, monkeypatch, capsys):
    if not rich:
        monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setenv("COLUMNS", "60")
    words = "see " + "one word after another " * 5
    tables.print_table(["a", "b"], [["x", words], ["y", "✗ [red]as it is"]])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    assert len(lines) > 5  # wrapped
    assert "✗ [red]as it is" in lines[-1]  # brackets are no markup
    assert " ".join(" ".join(lines).split()).count("one word after another") == 5


def test_a_terminal_without_signs_gets_something_readable():
    result = subprocess.run(
        [sys.executable, "-m", "passk_guard", "doctor", "--quick"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stderr
    assert "passk-guard " in result.stdout
    assert "+ ok" in result.stdout
    assert "?" not in result.stdout


def test_hushing_reaches_the_file_descriptors_and_ends(capfd):
    with quiet.hushed():
        print("python")
        os.write(1, b"a C library")
        os.write(2, b"a C library")
    print("after")
    assert capfd.readouterr() == ("after\n", "")


def test_alone_forgets_the_launcher_and_gives_it_back(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    before = dict(os.environ)
    with quiet.alone():
        assert not {"WORLD_SIZE", "SLURM_NTASKS"} & set(os.environ)
        assert os.environ["HF_HUB_OFFLINE"] == "1"
        assert torch.are_deterministic_algorithms_enabled()
    assert dict(os.environ) == before
    assert not torch.are_deterministic_algorithms_enabled()


def test_python_m_passk_guard_is_the_command(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "passk_guard", "doctor", "--quick", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["identity"] is None
    assert not list(tmp_path.iterdir())
