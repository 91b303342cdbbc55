"""Runs on two processes that share a model out: see stack_worker.py and faults_worker.py."""

import json

from forked import run_together, together


def _seen(out):
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(2)]


def stack_runs(out, trainer, engine, *cases):
    """What each of two processes saw of each case, in one launch that goes through all."""
    out.mkdir(exist_ok=True)
    together("stack_worker.py", out, trainer, engine, *cases)
    return _seen(out)


def refusals(out, engine):
    """What is said to settings that cannot be served, before training; alike on both processes."""
    together("refused_worker.py", out, engine)
    one, other = _seen(out)
    assert one == other
    return one


def untouched(ranks, case, alone="alone"):
    """Nothing of training tells a guarded run from one without; both processes saw the same."""
    one, other = (rank[case] for rank in ranks)
    assert one["history"] == other["history"]
    assert [step for step, _ in one["failures"]] == [step for step, _ in other["failures"]]
    for rank in ranks:
        assert rank[case]["weights"] == rank[alone]["weights"]
        assert rank[case]["losses"] == rank[alone]["losses"]
    return one


def changed(ranks, case, alone="alone"):
    """Training is another one, alike on both processes."""
    one, other = (rank[case] for rank in ranks)
    assert one["history"] == other["history"]
    assert one["failures"] == []
    assert one["history"][-1][-1] > 0.3  # λ
    assert one["weights"] != ranks[0][alone]["weights"]


def survives_faults(out, engine):
    """Fifty probes with a fault on a random process: no hang, one history."""
    together("faults_worker.py", out, engine, "survive")
    one, other = _seen(out)
    assert one["history"] == other["history"]
    assert [f[0] for f in one["failures"]] == [f[0] for f in other["failures"]]
    lost = {step for step, _ in one["failures"]}
    costly = {"verifier", "count", "gradient"}  # what is not scored is left out of a look
    assert lost == {step for step, (where, _) in enumerate(one["faults"]) if where in costly}
    assert len(one["history"]) == 50 - len(lost)
    assert 20 < len(lost) < 40
    assert one["gradients"].startswith("watched layers")  # a bad first look says nothing of them


def ends_where_it_must(out, engine):
    """One process that fails alone inside a pass ends the run on all, which say why; none waits."""
    ended = run_together("faults_worker.py", out, engine, "break", patience=60)
    assert [(out / f"alive{rank}").exists() for rank in range(2)] == [True, True]
    for code, said in ended:
        assert code == 1
        assert "HalfDone: passk-guard: one process failed where processes wait" in said
        assert "on process 1: MemoryError: no room for the head" in said
