"""Real trainers on DeepSpeed, two real processes: what training keeps, and what the guard sees."""

from extras import needs

needs("trl", "deepspeed")

import pytest
from forked import run_together
from stacks import (
    changed,
    ends_where_it_must,
    refusals,
    stack_runs,
    survives_faults,
    untouched,
)

from passk_guard import PassKGuardConfig
from passk_guard.integrations import _parallel
from passk_guard.integrations._parallel import check_deepspeed

CASES = {
    "trl": ("alone", "warn", "trainer mix"),
    "transformers": ("alone", "warn", "mix"),
    "lightning": ("alone", "warn"),
}


HALF, ADAPTER = ("half alone", "half warn"), ("adapter alone", "adapter warn")
MORE = {
    ("trl", 2): ("part",),
    ("trl", 3): ("part", "no room", "loaded alone", "loaded warn", *HALF, *ADAPTER),
    ("transformers", 2): HALF,
    ("transformers", 3): ("sketched", "backward"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """By trainer and stage, each in one launch."""
    seen = {}

    def of(trainer, stage):
        more = MORE.get((trainer, stage), ())
        if (trainer, stage) not in seen:
            out = tmp_path_factory.mktemp(f"{trainer}{stage}")
            engine = f"zero{stage}"
            seen[trainer, stage] = stack_runs(out, trainer, engine, *CASES[trainer], *more)
        return seen[trainer, stage]

    return of


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("trainer", ["trl", "transformers", "lightning"])
def test_warn_leaves_training_untouched(runs, trainer, stage):
    """With dropout, accumulation and clipping; layers are watched at every stage."""
    found = untouched(runs(trainer, stage), "warn")
    assert [look[0] for look in found["history"]] == [0, 2, 4]
    assert found["failures"] == []
    assert found["gradients"].startswith("watched layers, many prompts per backward, exact")


@pytest.mark.parametrize(("trainer", "stage"), [("trl", 3), ("transformers", 2)])
def test_in_half_precision_and_with_checkpointing(runs, trainer, stage):
    found = untouched(runs(trainer, stage), "half warn", "half alone")
    assert len(found["history"]) == 3
    assert found["gradients"].startswith("watched layers")


def test_a_model_that_is_split_as_it_is_loaded(runs):
    """As where a trainer is given a model's name: no process ever holds the whole."""
    found = untouched(runs("trl", 3), "loaded warn", "loaded alone")
    assert found["history"] == runs("trl", 3)[0]["warn"]["history"]


def test_with_an_adapter(runs):
    found = untouched(runs("trl", 3), "adapter warn", "adapter alone")
    assert found["history"][-1][3] != 0.0  # its training moves something
    assert found["gradients"].startswith("watched layers")


@pytest.mark.parametrize("stage", [2, 3])
def test_parameters_that_nobody_asked_for_are_left_alone_as_well(runs, stage):
    """The engine's hooks on them, too, which would reduce what a probe's backward brings."""
    found = untouched(runs("trl", stage), "part")
    assert found["failures"] == []
    assert found["history"] != runs("trl", stage)[0]["warn"]["history"]


@pytest.mark.parametrize("case", ["sketched", "backward"])
def test_other_ways_to_take_gradients_tell_the_same(runs, case):
    found, exact = untouched(runs("transformers", 3), case), runs("transformers", 3)[0]["warn"]
    assert found["gradients"] != exact["gradients"]
    for (_, *look), (_, *wanted) in zip(found["history"], exact["history"], strict=True):
        assert look == pytest.approx(wanted, abs=1e-4 if case == "sketched" else 1e-6)


def test_a_fault_on_all_processes_costs_a_probe_and_nothing_else(runs):
    found = untouched(runs("trl", 3), "no room")
    assert [look[0] for look in found["history"]] == [0, 4]
    assert found["failures"] == [[2, "MemoryError: no room for the head"]]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_mix_changes_training_alike_on_both(runs, stage):
    """Of the trainer's own advantages, and of an objective in the loss."""
    changed(runs("trl", stage), "trainer mix")
    changed(runs("transformers", stage), "mix")


def test_what_the_engine_keeps_to_itself_is_refused(tmp_path):
    said = refusals(tmp_path, "zero2")
    assert (
        "metric='adam' reads the second moments of each parameter, which DeepSpeed" in said["adam"]
    )
    assert "not possible here: DeepSpeed keeps the gradients" in said["anchors"]
    assert "pass that object as objective=" in said["anchors"]


def test_a_release_that_cannot_be_set_aside_is_refused(monkeypatch):
    """No such release is here; what it would say of itself is."""
    check_deepspeed(PassKGuardConfig())
    monkeypatch.setattr(_parallel, "version", lambda name: "0.15.4")
    with pytest.raises(ValueError, match=r"deepspeed 0\.15\.4 has hooks.*deepspeed>=0\.16\.9"):
        check_deepspeed(PassKGuardConfig())


def test_a_killed_run_goes_on_as_if_nothing_had_been(tmp_path):
    whole = stack_runs(tmp_path / "whole", "trl", "zero3", "long")
    (tmp_path / "killed").mkdir()
    code, _ = run_together("stack_worker.py", tmp_path / "killed", "trl", "zero3", "killed")[1]
    assert code == -9
    assert not (tmp_path / "killed" / "rank0.json").exists()
    resumed = stack_runs(tmp_path / "killed", "trl", "zero3", "resumed")
    for before, after in zip(whole, resumed, strict=True):
        assert after["resumed"]["weights"] == before["long"]["weights"]
        assert after["resumed"]["losses"] == before["long"]["losses"]
        assert after["resumed"]["history"] == before["long"]["history"][-1:]


def test_faults_on_one_process_cost_probes(tmp_path):
    survives_faults(tmp_path, "zero3")


def test_a_fault_inside_a_pass_on_one_process_ends_the_run(tmp_path):
    ends_where_it_must(tmp_path, "zero3")
