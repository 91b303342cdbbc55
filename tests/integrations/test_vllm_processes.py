"""Two real processes whose rollouts come from vLLM: one verdict, the run untouched, no waiting."""

from extras import needs

needs("trl", "vllm")

import json

import pytest
from launch import torchrun

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each process saw, in one launch that goes through all runs."""
    out = tmp_path_factory.mktemp("vllm")
    torchrun("vllm_worker.py", out, port=29573)
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_engines_of_two_processes_come_to_one_verdict_and_leave_training_alone(ranks):
    one, other = (rank["inside"]["guarded"] for rank in ranks)
    assert one == other
    assert one["steps"] == [0, 2, 4]
    assert one["failures"] == []
    for rank in ranks:
        alone = rank["inside"]["alone"]
        assert alone["weights"] == one["weights"]
        assert alone["losses"] == rank["inside"]["guarded"]["losses"]


def test_each_engine_gets_its_share_in_one_call(ranks):
    """7 rollouts of 15 prompts, one of them twice so that both get as many; 12 in training."""
    for rank in ranks:
        calls = rank["inside"]["guarded"]["calls"]
        assert [count for count in calls if count > 12] == [56, 56, 56]
        assert set(calls) == {12, 56}


def test_a_server_that_fails_costs_both_processes_that_probe(ranks):
    """The first process alone hears of it; the other one waits for what it says."""
    one, other = (rank["server"] for rank in ranks)
    assert one["steps"] == other["steps"] == [0, 6]
    assert [step for step, _ in one["failures"]] == [2, 4]
    assert all("Request failed: 400" in why for _, why in one["failures"])
    assert all("on process 0: Exception: Request failed" in why for _, why in other["failures"])
    assert one["weights"] == other["weights"]
    assert one["trained"] == 6
