"""The lane for GPUs, as far as any machine can tell: what it writes down, and when."""

import importlib.util
import json
import subprocess
import sys
import time

import pytest
import torch
from places import ROOT, TESTS

PAGE = ROOT / "docs" / "gpu.json"


def test_documents_say_so_as_long_as_nobody_has_measured_it():
    readme, production = ((ROOT / name).read_text() for name in ("README.md", "docs/production.md"))
    said = "Time and memory are not measured on a GPU yet"
    assert (said in " ".join(readme.split())) == (not PAGE.exists())
    assert ("Not measured on a GPU yet" in production) == (not PAGE.exists())
    if PAGE.exists():
        found = json.loads(PAGE.read_text())
        assert found["device"]
        assert not found["rehearsal"]


@pytest.fixture
def lane(monkeypatch):
    spec = importlib.util.spec_from_file_location("gpu_run", TESTS / "gpu" / "run.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_parts_run_in_processes_of_their_own(lane, tmp_path, monkeypatch):
    (tmp_path / "right.py").write_text("def test_right(): pass\n")
    (tmp_path / "endless.py").write_text("import time; print('begun', flush=True); time.sleep(99)")
    (tmp_path / "crash.py").write_text(
        "import os, pathlib, sys\n"
        "pathlib.Path(sys.argv[1]).write_text('[1]')\n"
        "print('said', flush=True); os.abort()\n"
    )
    monkeypatch.setattr(lane, "ROOT", tmp_path)

    def run(**part):
        return lane.run(lane.Part("a part", **part, tiny=()), lane._environment(True), True)

    right = run(seconds=60, tests=("right.py",))
    assert right["outcome"] == "passed"
    assert right["reason"].startswith("1 passed")
    began = time.monotonic()
    late = run(seconds=2, script=("endless.py",))
    assert time.monotonic() - began < 60
    assert (late["outcome"], late["output"]) == ("timed out", "begun")
    crash = run(seconds=60, script=("crash.py", "FIGURES"))
    assert (crash["outcome"], crash["figures"]) == ("failed", [1])
    assert "said" in crash["output"]
    absent = run(seconds=60, needs="no_such_package")
    assert absent == {"outcome": "skipped", "reason": "no_such_package is not installed"}


def test_what_was_done_counts_on_the_same_machine_with_the_same_code(lane, tmp_path):
    machine, target = {"device": "H100", "source": "1"}, tmp_path / "gpu.json"
    first = lane.finished(target, machine, False)
    assert {part["outcome"] for part in first["parts"].values()} == {"not run"}
    first["parts"]["Gramian"] = {"outcome": "passed", "seconds": 2}
    target.write_text(json.dumps(first))
    assert lane.finished(target, machine, False) == first
    other = lane.finished(target, {**machine, "source": "2"}, False)
    assert other["parts"]["Gramian"] == {"outcome": "not run"}


@pytest.mark.needs("trl", "lightning")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_rehearsal_says_so_and_without_it_a_gpu_is_asked_for(tmp_path):
    def lane(*options):
        command = [sys.executable, "tests/gpu/run.py", *options]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)

    before = PAGE.read_bytes() if PAGE.exists() else None
    done = lane("--rehearsal", "--keep", str(tmp_path), "--only", "vLLM")
    assert done.returncode == 0, done.stderr
    assert "REHEARSAL" in done.stdout
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["rehearsal"]
    assert found["releases"]["torch"]
    assert found["parts"]["Gramian"] == {"outcome": "not run"}
    assert found["parts"]["vLLM"]["outcome"] != "not run"
    alone = lane()
    assert alone.returncode == 1
    assert "torch.cuda.is_available() is false" in alone.stderr
    assert (PAGE.read_bytes() if PAGE.exists() else None) == before


def test_every_part_is_one_that_there_is(lane):
    assert len({part.name for part in lane.PARTS}) == len(lane.PARTS)
    for part in lane.PARTS:
        assert (ROOT / (part.tests or part.script)[0]).exists(), part.name


@pytest.mark.needs("transformers")
def test_costs(monkeypatch):
    """What does not fit costs that way only; figures are in units of the plain ones."""
    monkeypatch.syspath_prepend(str(TESTS / "benchmarks"))
    import gpu_cost

    def full():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    assert gpu_cost.tried(full) == "out of memory"
    assert gpu_cost.tried(lambda: 1 / 0) == "ZeroDivisionError: division by zero"
    assert gpu_cost.tried(list) is None
    ways = {
        "batched": {"seconds": 2.0, "peak_bytes": 880},
        "scoring": {"seconds": 0.5, "peak_bytes": 100},
        "guard": {"seconds": 1.5, "peak_bytes": 980},
        "backward": {"error": "out of memory"},
    }
    found = gpu_cost.in_ratios({"parameters": 10, "ways": ways})
    guard = found["ways"]["guard"]
    assert (guard["time"], guard["extra_peak"], guard["with_log_probs"]) == (0.75, 0.1, 0.75)
    assert gpu_cost.faults(found) == ""
    gave_up = "one backward per prompt, because 40% of the parameters are not known"
    assert gpu_cost.faults({**found, "engine": gave_up}) == f"engine: {gave_up}"
    ways["guard"] = {"error": "RuntimeError: no"}
    assert gpu_cost.faults(found) == "guard: RuntimeError: no"
