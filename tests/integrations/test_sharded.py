"""Every trainer with FSDP2 on two real processes."""

from extras import needs

needs("trl", "lightning")

import json
from importlib.metadata import version

import pytest
from forked import together

NEWER = tuple(map(int, version("transformers").split(".")[:2])) >= (5, 19)


@pytest.fixture(scope="module", params=["trl", "transformers", "lightning"])
def ranks(request, tmp_path_factory):
    """What each process saw, in one launch that goes through all cases."""
    if request.param != "lightning" and not NEWER:
        pytest.skip("transformers shards a model as it loads it from 5.19 on")
    out = tmp_path_factory.mktemp(request.param)
    together("sharded_worker.py", out, request.param)
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("case", ["warn", "sketched"])
def test_warn_leaves_training_untouched(ranks, case):
    one, other = (rank[case] for rank in ranks)
    assert [p[0] for p in one["history"]] == [0, 2, 4]
    assert one == other
    assert one["failures"] == []
    assert one["gradients"].startswith("watched layers")
    assert one["weights"] == ranks[0]["alone"]["weights"]


def test_a_sketch_tells_the_same(ranks):
    exact, sketched = (ranks[0][case]["history"] for case in ("warn", "sketched"))
    for (*_, z, change, _), (*_, z_sketched, change_sketched, _) in zip(
        exact, sketched, strict=True
    ):
        assert z_sketched == pytest.approx(z, abs=0.5)  # of 16 prompts; its error moves, too
        assert change_sketched == change  # no gradient in it


def test_mix_changes_training_alike_on_both(ranks):
    one, other = (rank["mix"] for rank in ranks)
    assert one == other
    assert one["failures"] == []
    assert one["history"][-1][-1] > 0.3  # λ
    if ranks[0]["trainer"] != "trl":  # there λ = 1 is the trainer untouched
        assert one["weights"] != ranks[0]["alone"]["weights"]


def test_the_mix_into_the_trainers_own_has_one_scale_and_one_verdict(ranks):
    if ranks[0]["trainer"] != "trl":
        return  # the others have no advantages of their own
    one, other = (rank["trainer mix"] for rank in ranks)
    assert one == other
    assert one["scale"] != 1.0
    assert one["history"][-1][-1] > 0.3  # λ
    assert one["weights"] != ranks[0]["alone"]["weights"]
