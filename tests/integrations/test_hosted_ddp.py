"""Lightning and ``transformers.Trainer`` on two real processes: one verdict, one set of weights."""

from extras import needs

needs("trl", "lightning")

import json

import pytest
from forked import together


@pytest.fixture(scope="module", params=["lightning", "transformers"])
def ranks(request, tmp_path_factory):
    """What each process saw, in one launch that goes through all cases."""
    out = tmp_path_factory.mktemp(request.param)
    together("hosted_ddp_worker.py", out, request.param)
    if request.param == "transformers":
        for rank in range(2):
            assert (out / f"node{rank}" / "checkpoint-4" / "passk_guard.pt").exists()
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_warn_leaves_training_untouched(ranks):
    one, other = (rank["warn"] for rank in ranks)
    assert [p[0] for p in one["history"]] == [0, 2, 4]
    assert one == other
    assert one["failures"] == []
    assert one["gradients"].startswith("watched layers")
    assert one["weights"] == ranks[0]["alone"]["weights"] == ranks[1]["alone"]["weights"]


def test_prompts_without_room_are_left_out_on_both_and_said_by_the_first(ranks):
    one, other = (rank["long"] for rank in ranks)
    assert [p[0] for p in one["history"]] == [0, 2, 4]
    assert one == other
    assert one["failures"] == []
    assert one["weights"] == ranks[0]["alone"]["weights"]
    said = [[w for w in rank["warnings"] if "cannot be sampled" in w] for rank in ranks]
    assert [len(told) for told in said] == [1, 0]


def test_mix_adds_the_same_term_on_both(ranks):
    one, other = (rank["mix"] for rank in ranks)
    assert one == other
    assert one["failures"] == []
    assert one["history"][-1][-1] > 0.3  # λ
    assert one["weights"] != ranks[0]["alone"]["weights"]


def test_a_verifier_that_raises_on_one_process_costs_both_that_probe(ranks):
    one, other = (rank["fails"] for rank in ranks)
    assert one["history"] == other["history"]
    assert [p[0] for p in one["history"]] == [0, 4]
    assert [f[0] for f in one["failures"]] == [f[0] for f in other["failures"]] == [2]
    assert "on process 1: ConnectionError: the sandbox is gone" in one["failures"][0][1]
    assert one["weights"] == other["weights"] == ranks[0]["alone"]["weights"]
    lost = [[w for w in rank["warnings"] if "this probe is lost" in w] for rank in ranks]
    assert [len(said) for said in lost] == [1, 0]  # said by the first process, once


def test_a_term_that_fails_on_one_process_is_left_out_on_both(ranks):
    one, other = (rank["term fails"] for rank in ranks)
    assert one == other
    assert one["failures"] == []
    assert one["history"][-1][-1] > 0.3
    assert one["weights"] == ranks[0]["alone"]["weights"]
    left_out = [[w for w in r["warnings"] if "pass@1 term is left out" in w] for r in ranks]
    assert [len(said) for said in left_out] == [1, 0]


def test_the_first_process_decides_when_the_clock_does(ranks):
    one, other = (rank["timed"] for rank in ranks)
    assert one == other
    assert one["weights"] == ranks[0]["alone"]["weights"]
