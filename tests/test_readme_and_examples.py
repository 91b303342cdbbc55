"""README blocks run, examples run, the core imports no framework."""

import os
import re
import subprocess
import sys
from pathlib import Path

import ambiguous_arithmetic as task
import hf_trainer
import lightning_module
import pytest

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_readme_block(index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where Lightning's default_root_dir is
    from hosts import model
    from trl_runs import held_out, make_trainer, near_answer

    block = BLOCKS[index]
    names = {"held_out": held_out(64), "verify": near_answer, "tokenizer": task.make_tokenizer()}
    if "integrations.transformers" in block:
        names["trainer"] = hf_trainer.make_trainer(model(), str(tmp_path), steps=1)
    elif "integrations.lightning" in block:
        names["module"] = lightning_module.PassKModule(model(), names["tokenizer"])
        names["loader"] = lightning_module.loader()
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
    assert result.stderr.count("pass@1 change") == 2  # of the guard, once per run
    assert "end, guarded" in result.stdout
    assert "tensorboard --logdir" in result.stdout
    assert (tmp_path / "passk_guard.png").read_bytes().startswith(b"\x89PNG")
    for name in ("watched", "guarded"):
        assert list((tmp_path / "tensorboard" / name).glob("events.out*"))


@pytest.mark.parametrize("name", ["hf_trainer", "lightning_module"])
def test_trainer_examples_end_with_a_table(tmp_path, name):
    arguments = ["--steps", 10, "--warm-up", 100, "--out", tmp_path]
    result = run("-W", "ignore", f"examples/{name}.py", *arguments)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("\n   0 ") + result.stderr.count("\n  10 ") == 2


def test_gsm8k_says_no_signal_and_raises_no_alarm(tmp_path):
    result = run("examples/gsm8k.py", "--steps", 4, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "no signal. Of 12 held-out prompts x 8 rollouts, none" in result.stderr
    assert "of it in probes" in result.stdout
    assert "pass@1 change" in result.stderr
    assert "ALARM" not in result.stderr


def test_math_verify_really_verifies():
    from gsm8k import solved

    completions = ["so #### 5", "#### $1,200.00", "5", "#### 6", r"#### \boxed{5}"]
    assert solved(completions, ["5", "1200", "5", "5", "5"]) == [1, 1, 0, 0, 1]


def test_the_core_imports_torch_and_numpy_only():
    code = (
        "import sys, passk_guard; "
        "bad = {'transformers', 'trl', 'lightning', 'matplotlib', 'rich'} & set(sys.modules); "
        "assert not bad, bad"
    )
    result = run("-c", code)
    assert result.returncode == 0, result.stderr
