"""Two real processes: one verdict, and the training run untouched."""

from extras import needs

needs("trl")

import json

import pytest
from forked import together


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each process saw, in one launch that goes through all runs."""
    out = tmp_path_factory.mktemp("ddp")
    together("ddp_worker.py", out)
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_same_verdict_on_both_ranks_and_training_untouched(ranks):
    one, other = (rank["guarded"] for rank in ranks)
    assert [p[0] for p in one["history"]] == [0, 2, 4]
    assert one == other
    assert one["failures"] == []
    assert one["weights"] == ranks[0]["alone"]["weights"]


def test_pkpo_on_groups_that_straddle_processes(ranks):
    """The replaced advantages are this process's slice, or the ranks' identity check fails."""
    one, other = (rank["pkpo"] for rank in ranks)
    assert one["history"] == other["history"]
    assert one["failures"] == []
    assert one["weights"] != ranks[0]["alone"]["weights"]
    kept = [rank["pkpo, lambda 1"]["weights"] for rank in ranks]
    assert kept[0] == kept[1] == ranks[0]["alone"]["weights"]


def test_a_verifier_that_raises_on_one_process_costs_both_that_probe(ranks):
    for rank in ranks:
        fails = rank["fails"]
        assert [p[0] for p in fails["history"]] == [0, 4]
        assert len(fails["failures"]) == 1
        assert "the sandbox is gone" in fails["failures"][0]
        assert fails["weights"] == rank["alone"]["weights"]
    assert "on process 1: ConnectionError" in ranks[0]["fails"]["failures"][0]


def test_one_scale_one_verdict_and_one_stop_on_both(ranks):
    one, other = (rank["mixes"] for rank in ranks)
    assert one == other
    assert [p[0] for p in one["mix"]] == [0, 2, 4, 6, 8]
    assert one["mix"][-1][1] > 0.5  # λ
    assert one["scale"] != 1.0
    assert one["stopped"] == 1  # the first step after the look that raised the alarm


def test_an_objective_that_fails_on_one_process_is_over_on_both(ranks):
    for rank in ranks:
        assert rank["mixes"]["fallen back"] == [6, True]
