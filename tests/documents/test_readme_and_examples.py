"""README blocks run, the demo runs."""

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

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_readme_block(index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where Lightning's default_root_dir is
    from hosts import model
    from trl_runs import held_out, make_trainer, near_answer

    block = BLOCKS[index]
    names = {"held_out": held_out(64), "verify": near_answer, "tokenizer": task.make_tokenizer()}
    if "integrations.transformers" in block:
        names["trainer"] = own_loss.make_trainer(model(), str(tmp_path), steps=1)
    elif "integrations.lightning" in block:
        names["module"] = own_loss.Module(model(), names["tokenizer"])
        names["loader"] = own_loss.loader()
    else:
        settings = {"num_generations": 16, "per_device_train_batch_size": 32}
        names["trainer"] = make_trainer(tmp_path, steps=1, **settings)
    exec(block, names)
    if "add_callback" in block and "train()" not in block:
        names["trainer"].train()


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
