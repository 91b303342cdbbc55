"""The Python blocks of README and docs run, the demo runs."""

from extras import needs
from places import ROOT

needs("trl", "lightning", "matplotlib")

import os
import re
import subprocess
import sys

import ambiguous_arithmetic as task
import own_loss
import pytest

DOCUMENTS = ["README.md", "CONTRIBUTING.md", "examples/README.md"]
DOCUMENTS += sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
BLOCKS = [
    pytest.param(block, id=f"{name} {number}")
    for name in DOCUMENTS
    for number, block in enumerate(
        re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL), 1
    )
]


@pytest.mark.parametrize("block", BLOCKS)
def test_python_blocks_of_documents_run(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where Lightning's default_root_dir is
    from hosts import model
    from trl_runs import held_out, make_trainer, near_answer

    names = {"held_out": held_out(64), "verify": near_answer, "tokenizer": task.make_tokenizer()}
    names["training_prompts"] = task.make_rows(64)
    if "integrations.transformers" in block:
        names["trainer"] = own_loss.make_trainer(model(), str(tmp_path), steps=1)
    elif "integrations.lightning" in block:
        names["module"] = own_loss.Module(model(), names["tokenizer"])
        names["loader"] = own_loss.loader()
    elif "integrations.trl" in block:
        settings = {"num_generations": 16, "per_device_train_batch_size": 32}
        names["trainer"] = make_trainer(tmp_path, steps=1, **settings)
    exec(block, names)
    if "add_callback" in block and "train()" not in block:
        names["trainer"].train()


def test_the_blocks_are_found():
    """A fence of another form, such as an indented one, would be left out unnoticed."""
    fences = sum((ROOT / name).read_text().count("```py") for name in DOCUMENTS)
    assert len(BLOCKS) == fences >= 8


def run(*arguments, timeout=300):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_demo_ends_with_a_table_a_picture_and_a_command(tmp_path):
    result = run("examples/demo.py", "--steps", 20, "--warm-up", 100, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("pass@1 change") == 2  # the guard's own table, of each run
    assert "tensorboard --logdir" in result.stdout
    assert "passk-guard report" in result.stdout
    assert (tmp_path / "passk_guard.png").read_bytes().startswith(b"\x89PNG")
    for name in ("watched", "guarded"):
        assert list((tmp_path / "tensorboard" / name).glob("events.out*"))
