"""0, 1 and 2 are answers of ``passk-guard compare``: nothing else may end with them."""

import errno
import io
import json
import os
import subprocess
import sys

import pytest

from passk_guard.cli.main import BAD_INPUT, INTERRUPTED, exit_status, main
from passk_guard.cli.models import is_model

COMMAND = [sys.executable, "-m", "passk_guard"]


def raising(error):
    def work():
        raise error

    return work


def noted(error):
    error.add_note("The verifier 'verify' raised this.")
    return error


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ValueError("k is 3"), BAD_INPUT, "passk-guard compare: k is 3\n"),
        (RuntimeError(), BAD_INPUT, "compare: RuntimeError at test_exit_statuses.py:"),
        (noted(StopIteration()), BAD_INPUT, "StopIteration at test_exit_statuses.py:"),
        (KeyError("ours"), BAD_INPUT, "KeyError: 'ours'"),
        (SystemExit(1), BAD_INPUT, "ended the program: SystemExit(1)"),
        (KeyboardInterrupt(), INTERRUPTED, "passk-guard compare: stopped.\n"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), BAD_INPUT, "Broken pipe"),
        (noted(ValueError("no number")), BAD_INPUT, "compare: ValueError: no number\nThe verifier"),
    ],
)
def test_nothing_that_is_raised_is_an_answer(error, status, said, capfd):
    assert exit_status("passk-guard compare", raising(error)) == status
    assert said in capfd.readouterr().err


def test_of_a_verifiers_error_the_place_is_said(capfd):
    exit_status("passk-guard probe", raising(noted(ValueError("no number"))))
    err = capfd.readouterr().err
    assert f'File "{__file__}"' in err
    assert "in work" in err
    exit_status("passk-guard probe", raising(ValueError("no number")))
    assert "File" not in capfd.readouterr().err


def held_out(folder, verifier):
    """Options for prompts and verifier."""
    prompts = folder / "held_out.jsonl"
    prompts.write_text('{"prompt": "1 + 1 ="}\n' * 4)
    return ["--prompts", str(prompts), "--verifier", f"{folder / verifier}:verify"]


@pytest.fixture
def files(tmp_path):
    """Counts of one model, and of one that is surely worse."""
    for name, right in (("a", 12), ("b", 4)):
        lines = [{"prompt_id": str(i), "correct": right, "n": 16} for i in range(300)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]


@pytest.mark.long
def test_what_nobody_reads_is_no_answer(files):
    """Python itself would end with 120, as it cannot flush."""
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run([*COMMAND, "compare", *files], stdout=writes, stderr=-1, text=True)
    os.close(writes)
    assert done.returncode == BAD_INPUT
    assert done.stderr == "passk-guard compare: [Errno 32] Broken pipe\n"


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_full_disk_is_no_answer(files, monkeypatch, name):
    with io.TextIOWrapper(open("/dev/full", "wb", 0), write_through=True) as full:
        monkeypatch.setattr(sys, name, full)
        sides = files if name == "stdout" else [files[0], "nowhere.jsonl"]
        assert main(["compare", *sides]) == BAD_INPUT


def test_a_verifier_that_ends_the_program_as_it_is_imported(files, tmp_path):
    (tmp_path / "ends.py").write_text("import sys\nsys.exit(0)\n")
    words = [files[0], "some/model", *held_out(tmp_path, "ends.py")]
    assert main(["compare", *words]) == BAD_INPUT


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("Qwen/Qwen2.5-0.5B", True),
        ("gpt2", True),
        ("before.jsonl", False),
        ("logs/run.eval", False),
        ("a/b/c", False),
        ("/tmp/nowhere", False),
    ],
)
def test_what_is_no_file_is_a_model_where_the_hub_could_have_it(name, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_model(name) is model
