"""A page is asked for before hours of sampling, and what it lacks is said then."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from passk_guard.cli.main import main
from passk_guard.cli.output import print_table, print_text

PACKAGES = ["jinja2", "matplotlib"]


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """Whatever is installed here: nothing is drawn."""
    for package in PACKAGES:
        monkeypatch.setitem(sys.modules, package, ModuleType(package))


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("command", [["probe", "model"], ["compare", "model", "other"]])
def test_a_package_that_is_missing_is_said_first(monkeypatch, capfd, tmp_path, command, package):
    monkeypatch.setitem(sys.modules, package, None)
    words = ["--prompts", "nowhere.jsonl", "--verifier", "nothing:f"]
    assert main([*command, *words, "--out", str(tmp_path / "page.html")]) == 3
    assert f"--out needs {package}: pip install" in capfd.readouterr().err


def test_a_place_for_the_page_is_made_first_or_refused(capfd, tmp_path):
    words = ["compare", str(tmp_path / "nowhere.jsonl"), "b.jsonl", "--out"]
    assert main([*words, str(tmp_path)]) == 3
    assert "is a folder. Give a file in it" in capfd.readouterr().err
    (tmp_path / "file").write_text("")
    assert main([*words, str(tmp_path / "file" / "page.html")]) == 3
    assert "nowhere" not in capfd.readouterr().err
    assert main([*words, str(tmp_path / "new" / "page.html")]) == 3
    assert "nowhere.jsonl does not exist" in capfd.readouterr().err
    assert Path(tmp_path / "new").is_dir()


def test_what_a_terminal_would_obey_is_spelt_out(capsys):
    print_text("a\x1b[31m  group\u202e of\nmine")
    print_table(["name\x07"], [["\x1b[2J"]])
    out = capsys.readouterr().out
    assert out == "a\\x1b[31m group\\u202e of mine\nname\\x07\n--------\n\\x1b[2J\n"
