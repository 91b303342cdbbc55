"""``passk-guard doctor`` where nothing but the core is installed, and its parts."""

import json
import os
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch
from places import ROOT

from passk_guard.cli import doctor, trainers
from passk_guard.cli.doctor import Package, alone, packages
from passk_guard.cli.main import main
from passk_guard.cli.trainers import HOSTS, Finding

REQUIRES = [
    "torch>=2.4",
    "numpy>=1.26",
    'transformers<6,>=4.56.2; extra == "transformers"',
    'trl<2,>=0.22.2; extra == "trl"',
    'transformers<6,>=4.56.2; extra == "trl"',
    'lightning>=2.4; extra == "lightning"',
    'passk-guard[transformers,trl]; extra == "all"',
]


@pytest.fixture
def bare(monkeypatch):
    """No trainer is found, and nothing is started."""

    @contextmanager
    def here():
        yield SimpleNamespace(submit=lambda f, *a: SimpleNamespace(result=lambda: f(*a)))

    monkeypatch.setattr(doctor, "alone", here)
    monkeypatch.setattr(trainers, "_is_installed", lambda name: False)


def test_releases_are_marked_by_the_packages_own_metadata(monkeypatch):
    releases = {
        "torch": ("2.4.0a0+git1", "ok"),  # a nightly counts as what it leads to
        "numpy": ("1.25.2", "too old"),
        "transformers": ("6.0", "too new"),
        "trl": ("0.22.2", "ok"),
        "pytorch-lightning": ("2.3", "too old"),  # by the range of lightning
    }

    def version(name):
        if name not in releases:
            raise metadata.PackageNotFoundError(name)
        return releases[name][0]

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "requires", lambda name: REQUIRES)
    found = {package.name: package for package in packages()}
    assert {name: found[name].mark for name in releases} == {n: m for n, (_, m) in releases.items()}
    assert found["lightning"].mark == "not installed"
    assert found["transformers"].supported == ">=4.56.2,<6"


@pytest.mark.parametrize("name", ["torch", "numpy", "transformers", "trl", "lightning", "jinja2"])
def test_the_ranges_are_those_of_pyproject(name):
    (package,) = (package for package in packages() if package.name == name)
    assert package.supported, "install the package, as make test does: pip install -e '.[dev]'"
    assert f'"{name}{package.supported}"' in (ROOT / "pyproject.toml").read_text()


def test_without_metadata_ranges_are_said_to_be_unknown(monkeypatch, capsys, bare):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    assert main(["doctor"]) == 0
    assert "the releases it supports are unknown" in " ".join(capsys.readouterr().out.split())


def test_nothing_but_the_core_is_no_failure(capsys, bare):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "Not installed: TRL GRPOTrainer, " in out
    assert "tiny model" not in out
    assert out.endswith("The core works; no trainer is installed.\n")


def test_json_is_all_that_is_printed(capsys, bare):
    assert main(["doctor", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert set(found) == {"packages", "accelerators", "trainers", "problems"}
    assert set(found["packages"][0]) == {"name", "installed", "supported", "mark"}
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
    assert asked == [True] * len(HOSTS) + [False] * len(HOSTS)


def test_only_what_is_installed_and_does_not_work_is_a_problem(monkeypatch, capsys, bare):
    old = Package("numpy", "1.2", ">=1.26", "too old")
    sound = [replace(old, mark=mark) for mark in ("not installed", "too new", "unknown", "ok")]
    harmless = ("cannot tell", "not tried", "not installed", "identical")
    findings = [Finding("a trainer", verdict, "why") for verdict in harmless]
    assert doctor.problems(sound, findings) == []
    bad = [Finding("a", "failed", "ImportError: gone"), Finding("b", "DIFFERENT", "1 of 3")]
    said = ["numpy 1.2 is too old: pip install 'numpy>=1.26'", "a: ImportError: gone", "b: 1 of 3"]
    assert doctor.problems([*sound, old], findings + bad) == said
    monkeypatch.setattr(doctor, "packages", lambda: [old])
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.endswith(f"1 problem:\n{said[0]}\n")


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (["identical", "not installed", "not tried"], "All is well"),
        (["identical", "cannot tell"], "the check is inconclusive"),
        (["not tried", "not installed"], "was not tried"),
    ],
)
def test_the_last_words_promise_no_more_than_was_seen(verdicts, said):
    assert said in doctor.conclusion([], [Finding("a trainer", v) for v in verdicts])[0]


def test_a_folder_that_is_named_like_a_package_is_none(tmp_path, monkeypatch):
    (tmp_path / "some_trainer").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not trainers._is_installed("some_trainer")
    assert trainers._is_installed("passk_guard")


def test_alone_is_silent_offline_and_outside_the_launcher(monkeypatch, capfd):
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with alone() as process:
        process.submit(os.write, 1, b"a C library").result()
        names = [process.submit(os.getenv, n) for n in ("WORLD_SIZE", "SLURM_NTASKS")]
        assert [name.result() for name in names] == [None, None]
        assert process.submit(os.getenv, "HF_HUB_OFFLINE").result() == "1"
        assert process.submit(torch.are_deterministic_algorithms_enabled).result()
    assert capfd.readouterr().out == ""


def test_a_process_that_dies_is_a_finding_and_no_crash():
    with alone() as process:
        dying = SimpleNamespace(submit=lambda *_: process.submit(os._exit, 1))
        found = doctor._examined(dying, "lightning", True)
    assert found.verdict == "failed"
    assert "died" in found.reason
