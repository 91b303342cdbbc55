"""Two real processes: one verdict, and the training run untouched."""

from extras import needs

needs("trl")

import json

import pytest
from launch import torchrun


def on_two(out, *arguments):
    out.mkdir()
    torchrun("ddp_worker.py", out, *arguments)
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_same_verdict_on_both_ranks_and_training_untouched(tmp_path):
    guarded = on_two(tmp_path / "guarded", "guarded")
    alone = on_two(tmp_path / "alone", "alone")
    assert [p[0] for p in guarded[0]["history"]] == [0, 2, 4]
    assert guarded[0]["history"] == guarded[1]["history"]
    assert guarded[0]["failures"] == []
    assert guarded[0]["weights"] == guarded[1]["weights"] == alone[0]["weights"]


def test_pkpo_on_groups_that_straddle_processes(tmp_path):
    """The replaced advantages are this process's slice, or the ranks' identity check fails."""
    passk = on_two(tmp_path / "pkpo", "guarded", "pkpo")
    assert passk[0]["history"] == passk[1]["history"]
    assert passk[0]["failures"] == []
    alone = on_two(tmp_path / "alone", "alone")
    assert passk[0]["weights"] != alone[0]["weights"]
    kept = on_two(tmp_path / "kept", "guarded", "pkpo, lambda 1")
    assert kept[0]["weights"] == kept[1]["weights"] == alone[0]["weights"]


@pytest.mark.usefixtures("faults")
def test_a_verifier_that_raises_on_one_process_costs_both_that_probe(tmp_path):
    ranks = on_two(tmp_path / "fails", "guarded", "fails")
    alone = on_two(tmp_path / "alone", "alone")
    for rank in ranks:
        assert [p[0] for p in rank["history"]] == [0, 4]
        assert len(rank["failures"]) == 1
        assert "the sandbox is gone" in rank["failures"][0]
        assert rank["weights"] == alone[0]["weights"]
    assert "on process 1: ConnectionError" in ranks[0]["failures"][0]


def test_one_scale_one_verdict_and_one_stop_on_both(tmp_path):
    one, other = on_two(tmp_path / "mixes", "guarded", "mixes")
    assert one == other
    assert [p[0] for p in one["mix"]] == [0, 2, 4, 6, 8]
    assert one["mix"][-1][1] > 0.5  # λ
    assert one["scale"] != 1.0
    assert one["stopped"] == 1  # the first step after the look that raised the alarm
