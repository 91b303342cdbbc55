"""World-size invariance, and faults on one process only: no hang, one verdict."""

import json

import pytest
import torch
import torch.distributed.fsdp
from launch import torchrun
from tiny import KINDS, LANGUAGE_MODELS, CausalLMPolicy, random_groups

from passk_guard.gradients import EngineSettings, HookEngine
from passk_guard.gradients.backward import prompt_gramian
from passk_guard.gradients.parameters import select_parameters
from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.scores import score_all

# Before torch 2.6 FSDP2 is private, and runs on GPUs alone.
SHARDS = hasattr(torch.distributed.fsdp, "fully_shard")
SHARDED = pytest.param(
    "sharded", marks=pytest.mark.skipif(not SHARDS, reason="no FSDP2 on the CPU before torch 2.6")
)

FLAT = ("flat", "flat, whose parameters are kept")  # FSDP1

GRAMIANS = ("exact", "sketched", "hooks", "hooks, sketched")


def gramians(kind="torch", seed=0, prepare=lambda model: model, watched=True):
    """Exact and sketched Gramian, and scores, of the same rollouts on any number of processes."""
    model = prepare(LANGUAGE_MODELS[kind]().eval())
    policy, groups = CausalLMPolicy(model), random_groups(7, 5, seed=seed)
    parameters = select_parameters(policy.parameters())
    found = {
        "exact": prompt_gramian(policy, groups, parameters),
        "sketched": prompt_gramian(policy, groups, parameters, memory_limit=0),
        "scores": score_all(policy, groups, PassSize(8)),
    }
    for name, limit in (("hooks", 1e12), ("hooks, sketched", 0)) if watched else ():
        taken = HookEngine(policy, EngineSettings(None, PassSize(8), limit)).take(groups, (0,))
        found |= {name: taken.gramian, "scores, too": [s for s in taken.scores if s is not None]}
    return found


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture
def journal(out):
    return out / "probe.jsonl"


@pytest.fixture(scope="module")
def ranks(out):
    """What three processes found, of which some have a prompt more than others."""
    torchrun("processes_worker.py", out, processes=3, port=29541)
    return [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(3)]


def agree(ranks, kind, how, sketch_error=1e-5):
    """Every process has what one alone has, to rounding, and the same bits as the others."""
    alone, found = gramians(kind), [rank[kind][how] for rank in ranks]
    for rank in found:
        for name in set(rank) & set(GRAMIANS):
            error = (rank[name] - alone[name]).norm() / alone[name].norm()
            assert error < (sketch_error if name == "sketched" else 1e-5), name
            # So that no verdict hangs on rounding.
            assert torch.equal(rank[name], found[0][name])
        for scores in {"scores", "scores, too"} & set(rank):
            for mine, theirs in zip(alone[scores], rank[scores], strict=True):
                assert torch.allclose(mine, theirs, atol=1e-5)
    return set(found[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["gramians", SHARDED])
def test_the_gramian_does_not_depend_on_the_number_of_processes(ranks, how, kind):
    """Whether each process holds the whole model, or a part of each parameter (FSDP2)."""
    assert agree(ranks, kind, how) == {*GRAMIANS, "scores", "scores, too"}
    exact = gramians(kind)["exact"]
    for rank in ranks:
        assert (rank[kind][how]["hooks"] - exact).norm() / exact.norm() < 1e-5


def test_all_processes_go_by_the_one_with_the_least_memory(ranks):
    assert agree(ranks, "torch", "cramped") == {"hooks", "scores", "tokens"}
    tokens = [rank["torch"]["cramped"]["tokens"] for rank in ranks]
    chosen, left = tokens[0]
    assert 25 < chosen < 2**14
    assert left <= 25
    assert tokens == [(chosen, left)] * len(ranks)


@pytest.mark.needs("transformers")
@pytest.mark.parametrize("how", FLAT)
def test_the_gramian_of_parameters_laid_end_to_end(ranks, how):
    """FSDP1. Signs belong to the parameters as they lie there, so a sketch is another one."""
    assert agree(ranks, "llama", how, 0.05) == {"exact", "sketched", "scores"}


@pytest.mark.skipif(not SHARDS, reason="no FSDP2 on the CPU before torch 2.6")
def test_shards_that_several_processes_hold_are_refused(ranks):
    """And neither FSDP2 over all processes nor a model that is not split."""
    for rank in ranks:
        assert "'model.embed_tokens.weight' is split over processes as" in rank["replicated"]
        assert "('copies', 'parts'), which passk-guard does not support" in rank["replicated"]


def test_a_fault_on_one_process_is_a_fault_on_all_and_nothing_hangs(ranks):
    first = ranks[0]["faults"]
    assert len(first["history"]) + len(first["failures"]) == 20
    assert len(first["failures"]) > 10
    for rank in ranks[1:]:
        assert rank["faults"]["history"] == first["history"]
        assert [f[0] for f in rank["faults"]["failures"]] == [f[0] for f in first["failures"]]
    reasons = {reason for rank in ranks for _, reason in rank["faults"]["failures"]}
    assert any("on process 1: RuntimeError: gradient is broken" in reason for reason in reasons)
    assert any(reason == "RuntimeError: score is broken" for reason in reasons)


def test_a_policy_is_probed_outside_a_run_and_one_process_writes_the_journal(ranks, journal):
    found = [rank["probed"] for rank in ranks]
    assert {one["said"] for one in found[:1] + found[2:]} <= {
        "on process 1: RuntimeError: generate is broken"
    }
    assert found[1]["said"] == "generate is broken"
    assert max(one["generated"] for one in found) < 32 * 4 * 0.75  # the work is shared
    for one in found:
        assert {**one, "said": "", "generated": 0} == {**found[0], "said": "", "generated": 0}
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert sorted(line["row"] for line in lines if line.get("look") == "prompt") == [*range(32)]
    assert found[0]["prompts"] == 32


def test_processes_that_hold_different_rollouts_are_told_so(ranks):
    for rank in ranks:
        assert set(rank["disagree"]) == {"auto", "hooks", "backward"}
        assert all("hold different rollouts" in said for said in rank["disagree"].values())


def test_processes_share_the_verifier_check_and_come_to_one_verdict(ranks):
    first, *others = (rank["again"] for rank in ranks)
    assert [found is None for found in first["found"]] == [True, False, True, False]
    assert len(first["state"]["rollouts"]) == 16 * 16 // 8
    assert all(other["found"] == first["found"] for other in others)
    assert all(other["state"] == first["state"] for other in others)
    for i, rank in enumerate(ranks):
        mine = len(range(i, 32, len(ranks)))
        assert rank["again"]["calls"].count(mine) == (3 if i == 1 else 4)
    (said,) = first["said"]
    assert "the verifier could not be checked" in said
    assert "on process 1: ConnectionError: no judge" in said
    assert not any(other["said"] for other in others)
