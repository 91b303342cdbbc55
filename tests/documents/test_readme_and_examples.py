"""The Python blocks of README and docs run, the demo runs."""

from extras import needs
from places import ROOT

needs("trl", "lightning", "matplotlib")

import os
import re
import subprocess
import sys
import textwrap
from contextlib import nullcontext

import ambiguous_arithmetic as task
import own_loss
import pytest
from hosts import model
from trl_runs import held_out, make_trainer, near_answer

from passk_guard import HeldOutPool, PassKGuard, PassKGuardConfig, Policy
from passk_guard.integrations import lightning as for_lightning
from passk_guard.integrations import transformers as for_transformers
from passk_guard.integrations import trl as for_trl

DOCUMENTS = ["README.md", "CONTRIBUTING.md", "examples/README.md"]
DOCUMENTS += sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
BLOCKS = [
    pytest.param(block, id=f"{name} {number}")
    for name in DOCUMENTS
    for number, block in enumerate(
        re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL), 1
    )
]


def run_block(block, folder, **more):
    """A block with the names that documents take for granted."""
    tokenizer = task.make_tokenizer()
    names = {"held_out": held_out(64), "verify": near_answer, "tokenizer": tokenizer, **more}
    names |= {"training_prompts": task.make_rows(64), "model": model()}
    if "integrations.transformers" in block:
        names["trainer"] = own_loss.make_trainer(model(), str(folder), steps=1)
    elif "integrations.lightning" in block:
        names["module"] = own_loss.Module(model(), tokenizer)
        names["loader"] = own_loss.loader()
    elif "integrations.trl" in block:
        settings = {"num_generations": 16, "per_device_train_batch_size": 32}
        names["trainer"] = make_trainer(folder, steps=1, **settings)
    exec(block, names)
    if "add_callback" in block and "train()" not in block:
        names["trainer"].train()


@pytest.mark.usefixtures("doors")
@pytest.mark.parametrize("block", BLOCKS)
def test_python_blocks_of_documents_run(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where Lightning's default_root_dir is
    run_block(block, tmp_path)


EXAMPLES = {
    "TRL": for_trl.PassKGuardCallback,
    "transformers": for_transformers.PassKGuardCallback,
    "Lightning": for_lightning.PassKGuardCallback,
    "guard": PassKGuard,
    "policy": Policy,
}


@pytest.mark.parametrize("entry", EXAMPLES)
def test_the_examples_of_docstrings_run(entry, tmp_path, monkeypatch, capsys):
    """The first block of code of each entry point."""
    block = textwrap.dedent(re.search(r"::\n\n((?: {8}.*\n|\n)+)", EXAMPLES[entry].__doc__)[1])
    more = {"train_one_step": lambda: None}
    if entry == "policy":
        block += "\nguard = PassKGuard(Table(16, 3), HeldOutPool(rows), config, isolation=alone)"
        block += "\nprint(guard.probe(0).track)"
        rows = [{"prompt": str(i), "answer": i % 3} for i in range(16)]
        config = PassKGuardConfig(k=2, reference_prompts=8)
        more = {"PassKGuard": PassKGuard, "HeldOutPool": HeldOutPool, "rows": rows}
        more |= {"config": config, "alone": lambda seed: nullcontext()}
    monkeypatch.chdir(tmp_path)
    run_block(block, tmp_path, **more)
    assert "Track(pass_at_1=" in capsys.readouterr().out


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
    result = run("examples/demo.py", "--steps", 10, "--warm-up", 20, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("change in the pool") == 2  # the guard's own table, of each run
    assert "tensorboard --logdir" in result.stdout
    assert "passk-guard report" in result.stdout
    assert (tmp_path / "passk_guard.png").read_bytes().startswith(b"\x89PNG")
    for name in ("watched", "guarded"):
        assert list((tmp_path / "tensorboard" / name).glob("events.out*"))
