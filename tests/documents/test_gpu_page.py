"""The lane for GPUs, as far as any machine can tell: what it writes down, and when."""

import importlib.util
import json
import subprocess
import sys
import time

import pytest
import torch
from gpu_outcome import OUTCOMES, document, outcome, records, table
from places import ROOT, TESTS

PAGE = ROOT / "docs" / "gpu.json"
NOT_MEASURED = "Time and memory are not measured on a GPU yet"


def words(path):
    return " ".join(path.read_text().split())


def test_the_readme_says_so_as_long_as_nobody_has_measured_it():
    assert (NOT_MEASURED in words(ROOT / "README.md")) == (not PAGE.exists())
    said = words(ROOT / "docs" / "production.md")
    assert ("Not measured on a GPU yet" in said) == (not PAGE.exists())


@pytest.mark.skipif(not PAGE.exists(), reason="nobody has run `make gpu` yet")
def test_what_was_measured_is_a_gpu_s():
    found = json.loads(PAGE.read_text())
    assert not found["rehearsal"]
    assert found["device"]
    assert {part["outcome"] for part in found["parts"].values()} <= set(OUTCOMES)


@pytest.fixture(scope="module")
def lane():
    spec = importlib.util.spec_from_file_location("gpu_run", TESTS / "gpu" / "run.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_outcomes():
    ok, bad = {"test": "a", "outcome": "passed"}, {"test": "b", "outcome": "failed", "reason": "x"}
    out = {"test": "c", "outcome": "skipped", "reason": "no deepspeed"}
    found = outcome(0, 1.23, 9, tests=[ok, out])
    assert found == {
        "outcome": "passed",
        "seconds": 1.2,
        "tests": {"a": {"outcome": "passed"}, "c": {"outcome": "skipped", "reason": out["reason"]}},
    }
    assert outcome(0, 1, 9, tests=[out])["outcome"] == "skipped"
    assert outcome(0, 1, 9, tests=[out])["reason"] == "no deepspeed"
    assert outcome(5, 1, 9)["outcome"] == "skipped"
    failed = outcome(1, 1, 9, tests=[ok, bad], output="x" * 9999 + "end")
    assert (failed["outcome"], failed["reason"]) == ("failed", "1 of 2 tests")
    assert failed["output"].endswith("end")
    assert len(failed["output"]) == 4000
    assert outcome(-11, 1, 9)["reason"] == "exit status -11"
    late = outcome(None, 9.1, 9, tests=[ok], figures={"guard": 1})
    assert (late["outcome"], late["reason"]) == ("timed out", "stopped after 9 s")
    assert late["figures"] == {"guard": 1}  # what was found until then
    assert {f["outcome"] for f in (found, failed, late)} <= set(OUTCOMES)


def test_a_line_that_was_cut_off_is_left_out():
    assert records('{"test": "a"}\n{"test": "b"}\n{"te') == [{"test": "a"}, {"test": "b"}]


def test_one_part_s_failure_loses_no_other():
    machine = {"device": "H100", "releases": {"torch": "2.13"}}
    parts = {"one": outcome(1, 1, 9), "three": outcome(0, 2, 9, figures={"time": 0.7})}
    whole = document(machine, ["one", "two", "three"], parts, rehearsal=False)
    assert whole["device"] == "H100"
    assert list(whole["parts"]) == ["one", "two", "three"]
    assert whole["parts"]["two"] == {"outcome": "not run"}
    assert whole["parts"]["three"]["figures"] == {"time": 0.7}
    assert json.loads(json.dumps(whole)) == whole
    assert "two" in table(whole)
    assert "not run" in table(whole)


def test_parts_run_in_processes_of_their_own(lane, tmp_path, monkeypatch):
    """A test that passes, one that fails and one that is skipped; one that never ends; a crash."""
    (tmp_path / "test_some.py").write_text(
        "import pytest, time\n"
        "def test_right(): pass\n"
        "def test_wrong(): assert 1 == 2\n"
        "def test_absent(): pytest.skip('no such thing')\n"
        "def test_endless(): time.sleep(600)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(
        "import json, os, pathlib, sys\n"
        "pathlib.Path(sys.argv[1]).write_text(json.dumps({'found': 1}))\n"
        "print('said'); sys.stdout.flush(); os.abort()\n"
    )
    monkeypatch.setattr(lane, "ROOT", tmp_path)
    environment = {**lane._environment(True), "PYTHONPATH": str(TESTS / "helpers")}
    some = lane.Part("some", 60, tests=("test_some.py", "-k", "not endless"))
    found = lane._run(some, environment, True)
    assert found["outcome"] == "failed"
    tests = {name: test["outcome"] for name, test in found["tests"].items()}
    assert tests == {"test_right": "passed", "test_wrong": "failed", "test_absent": "skipped"}
    assert "1 == 2" in found["tests"]["test_wrong"]["reason"]
    assert found["tests"]["test_absent"]["reason"] == "no such thing"
    began = time.monotonic()
    late = lane._run(lane.Part("late", 8, tests=("test_some.py",)), environment, True)
    assert time.monotonic() - began < 60
    assert late["outcome"] == "timed out"
    assert late["tests"]["test_right"]["outcome"] == "passed"  # what was done is there
    crash = lane._run(
        lane.Part("crash", 60, script=(str(script), "FIGURES"), tiny=()), environment, True
    )
    assert crash["outcome"] == "failed"
    assert crash["figures"] == {"found": 1}
    assert "said" in crash["output"]
    gone = lane._run(lane.Part("gone", 60, tests=("test_none.py",)), environment, True)
    assert gone == {"outcome": "skipped", "reason": "there is no test_none.py"}
    absent = lane._run(lane.Part("absent", 60, needs="no_such_package"), environment, True)
    assert absent["reason"] == "no_such_package is not installed"


def test_what_was_done_counts_on_the_same_machine_with_the_same_code(lane, tmp_path):
    machine, part = {"device": "H100", "source": "1"}, outcome(0, 1, 9)
    lane._note(tmp_path, "cost, 0.5B", machine, part)
    assert lane._noted(tmp_path, machine) == {"cost, 0.5B": part}
    assert lane._noted(tmp_path, {**machine, "source": "2"}) == {}


@pytest.fixture
def kept():
    """What a run by somebody with a GPU left here stays as it was."""
    before = PAGE.read_bytes() if PAGE.exists() else None
    yield before
    assert (PAGE.read_bytes() if PAGE.exists() else None) == before


@pytest.mark.needs("trl", "lightning")
def test_a_rehearsal_says_so_and_leaves_the_page_alone(tmp_path, kept):
    command = [sys.executable, "tests/gpu/run.py", "--rehearsal", "--keep", str(tmp_path)]
    done = subprocess.run(
        [*command, "--minutes", "1", "--only", "vLLM"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "REHEARSAL" in done.stdout
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["rehearsal"]
    assert found["releases"]["torch"]
    assert found["parts"]["Gramian"] == {"outcome": "not run"}
    assert found["parts"]["vLLM"]["outcome"] != "not run"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_to_do(kept):
    command = [sys.executable, "tests/gpu/run.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "torch.cuda.is_available() is false" in done.stderr
    assert "--rehearsal" in done.stderr


def test_every_part_is_one_that_there_is(lane):
    names = [part.name for part in lane.PARTS]
    assert len(set(names)) == len(names)
    for part in lane.PARTS:
        path = (part.tests or part.script)[0]
        assert (ROOT / path).exists() or part.needs, path
    assert sum(bool(part.tests) for part in lane.PARTS) >= 5


@pytest.mark.needs("transformers")
def test_what_does_not_fit_costs_that_way_only(monkeypatch):
    monkeypatch.syspath_prepend(str(TESTS / "benchmarks"))
    import gpu_cost

    def full():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    def broken():
        raise ValueError("no")

    assert gpu_cost.tried(full) == "out of memory"
    assert gpu_cost.tried(broken) == "ValueError: no"
    assert gpu_cost.tried(list) is None

    class Small:
        """Takes four rollouts at once, at most."""

        model = torch.nn.Linear(1, 1)

        def work(self, name, groups):
            if self.at_once > 4:
                full()
            time.sleep(0.02 / self.at_once * len(groups))

    groups = gpu_cost.make_groups(4, 4, 8, 16, "cpu")
    assert gpu_cost.best_micro_batch(Small(), groups, "cpu") == (4, None)
    monkeypatch.setattr(Small, "work", lambda *_: full())
    assert gpu_cost.best_micro_batch(Small(), groups, "cpu") == (0, "out of memory")


@pytest.mark.needs("transformers")
def test_figures_are_in_units_of_the_plain_ones(monkeypatch):
    monkeypatch.syspath_prepend(str(TESTS / "benchmarks"))
    import gpu_cost

    ways = {
        "batched": {"seconds": 2.0, "peak_bytes": 880},
        "scoring": {"seconds": 0.5, "peak_bytes": 100},
        "guard": {"seconds": 1.5, "peak_bytes": 980},
        "backward": {"seconds": 2.5, "peak_bytes": 780},
        "loop": {"error": "out of memory"},
    }
    found = gpu_cost.in_ratios({"parameters": 10, "ways": ways})["ways"]
    assert (found["guard"]["time"], found["guard"]["extra_peak"]) == (0.75, 0.1)
    assert found["guard"]["with_log_probs"] == 0.75  # it gives them
    assert found["backward"]["with_log_probs"] == 1.5
    assert found["loop"] == {"error": "out of memory"}


@pytest.mark.needs("transformers")
def test_only_want_of_memory_is_no_fault(monkeypatch):
    monkeypatch.syspath_prepend(str(TESTS / "benchmarks"))
    import gpu_cost

    small, absent = {"error": "out of memory"}, {"error": "torchjd is not installed"}
    ways = {"batched": {}, "guard": small, "autogram": absent}
    assert gpu_cost.faults({"ways": ways}) == ""
    assert gpu_cost.faults({"ways": {}, "error": "out of memory"}) == ""
    broken = {**ways, "guard": {"error": "RuntimeError: no"}}
    assert gpu_cost.faults({"ways": broken}) == "guard: RuntimeError: no"
    gave_up = (
        "one backward per prompt, because 40% of the parameters are in layers that are not known"
    )
    assert gpu_cost.faults({"ways": {}, "engine": gave_up}) == f"engine: {gave_up}"
    assert gpu_cost.faults({"ways": {}, "engine": "watched layers, exact"}) == ""
