"""The job file that gates a release does so: its own script, run by a shell on two files."""

from extras import needs
from places import ROOT

needs("yaml", "matplotlib")

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

JOB = yaml.safe_load((ROOT / "examples" / "release_gate.yml").read_text())["jobs"]["compare"]


def script():
    scripts = [step["run"] for step in JOB["steps"] if "run" in step]
    (found,) = [text for text in scripts if "passk-guard compare" in text]
    return found


def write(path, shift, m, seed):
    rng = np.random.default_rng(seed)
    right = rng.binomial(32, np.clip(np.linspace(0.02, 0.98, m) + shift, 0, 1))
    lines = [{"prompt_id": str(i), "correct": int(c), "n": 32} for i, c in enumerate(right)]
    path.write_text("\n".join(map(json.dumps, lines)))


@pytest.mark.long
@pytest.mark.parametrize(
    ("shift", "prompts", "status", "said"),
    [
        (0.0, 2000, 0, "did not fall by 1 point"),
        (-0.05, 2000, 1, "::error::pass@1 fell, or it could not be compared (status 1)"),
        (0.0, 60, 0, "::warning::Not enough data"),
        (None, 60, 3, "(status 3)"),
    ],
)
def test_the_script_holds_a_release_back(tmp_path, shift, prompts, status, said):
    write(tmp_path / "old.jsonl", 0.0, prompts, 1)
    if shift is not None:
        write(tmp_path / "new.jsonl", shift, prompts, 2)
    command = tmp_path / "passk-guard"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m passk_guard "$@"\n')
    command.chmod(0o755)
    found = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script()],  # as GitHub runs it
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "PRODUCTION": "old.jsonl",
            "CANDIDATE": "new.jsonl",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == status, found.stderr
    assert said in " ".join(found.stdout.split())
    assert Path(tmp_path / "passk_guard.html").exists() == (status != 3)
