"""Trainers on FSDP1, two real processes: what training keeps, and what the guard sees."""

from extras import needs

needs("trl")

from importlib.metadata import version

import pytest
from stacks import changed, refusals, stack_runs, untouched

if tuple(map(int, version("transformers").split(".")[:1])) < (5,):
    pytest.skip("before transformers 5 FSDP is set otherwise", allow_module_level=True)

# With "fsdp1-kept" the model knows its own parameters.


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    seen = {}

    def of(trainer, form):
        more = (
            "sketched",
            "trainer mix",
            "half alone",
            "half warn",
            "adapter alone",
            "adapter warn",
        )
        if (trainer, form) not in seen:
            out = tmp_path_factory.mktemp(f"{trainer}{form}")
            more = more if (trainer, form) == ("trl", "fsdp1") else ()
            seen[trainer, form] = stack_runs(out, trainer, form, "alone", "warn", *more)
        return seen[trainer, form]

    return of


@pytest.mark.parametrize(("trainer", "form"), [("trl", "fsdp1"), ("transformers", "fsdp1-kept")])
def test_warn_leaves_training_untouched(runs, trainer, form):
    found = untouched(runs(trainer, form), "warn")
    assert [look[0] for look in found["history"]] == [0, 2, 4]
    assert found["failures"] == []
    said = "one backward per prompt, because FSDP1 lays parameters end to end"
    assert found["gradients"] == said


def test_in_half_precision_with_checkpointing_and_with_an_adapter(runs):
    ranks = runs("trl", "fsdp1")
    assert len(untouched(ranks, "half warn", "half alone")["history"]) == 3
    assert untouched(ranks, "adapter warn", "adapter alone")["history"][-1][3] != 0.0


def test_a_sketch_tells_the_same(runs):
    ranks = runs("trl", "fsdp1")
    found, exact = untouched(ranks, "sketched"), ranks[0]["warn"]
    assert found["history"] != exact["history"]
    for (_, *look), (_, *wanted) in zip(found["history"], exact["history"], strict=True):
        assert look == pytest.approx(wanted, abs=0.05)


def test_what_end_to_end_parameters_cannot_do_is_refused(tmp_path):
    said = refusals(tmp_path, "fsdp1")
    assert "metric='adam' reads the second moments of each parameter, which FSDP1" in said["adam"]
    assert "not possible here: FSDP1 keeps the gradients" in said["anchors"]
    assert "pass that object as objective=" in said["anchors"]
    assert "parameters='mlp' chooses by name" in said["names"]
    assert "FSDP1 shares this model out by NO_SHARD" in said["no shards"]


def test_tensor_parallelism_is_refused(tmp_path):
    assert refusals(tmp_path, "tensor") == {
        "at all": "This trainer runs tensor parallel, which passk-guard does not support: one "
        "process, DDP, FSDP and DeepSpeed work."
    }


def test_mix_changes_training_alike_on_both(runs):
    changed(runs("trl", "fsdp1"), "trainer mix")
