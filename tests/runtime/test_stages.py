"""What the guard tells of its work while it is at it."""

from itertools import groupby

import pytest
from guarded_bandit import CONTEXTS, make_guard
from tiny import BanditPolicy

from passk_guard import HeldOutPool, PassKGuard, PassKGuardConfig, PassKGuardWarning
from passk_guard.rollouts import sampling

OVER = ("", 0, 0)


def told(policy=None, hook=None, **settings):
    """A guard, and what its hook is called with."""
    calls = []
    policy = policy or BanditPolicy(CONTEXTS, dim=3, seed=5)
    config = PassKGuardConfig(k=4, reference_prompts=16, every=5, **settings)
    pool = HeldOutPool([{"prompt": str(i)} for i in range(CONTEXTS)])

    def keep(*call):
        calls.append(call)
        if hook is not None:
            hook(*call)

    return PassKGuard(policy, pool, config, isolation=policy.isolated, progress=keep), calls


def stages(calls):
    return [name for name, _ in groupby(stage for stage, _, _ in calls)]


def test_a_probe_tells_its_stages_in_order_and_its_end():
    guard, calls = told()
    guard.probe(0)
    then = ["scoring", "gradients", "scoring"]
    assert stages(calls) == ["sampling the reference", *then, ""]
    calls.clear()
    guard.probe(5)
    assert stages(calls) == ["sampling and verifying", *then, "scoring again", ""]
    calls.clear()
    guard.rescore(6)
    assert stages(calls) == ["scoring again", ""]
    assert calls[-1] == OVER
    assert calls.count(OVER) == 1


def test_what_is_counted_is_counted_through_from_none_to_the_last(monkeypatch):
    monkeypatch.setattr(sampling, "CHUNK", 4)
    guard, calls = told()
    probe = guard.probe(0)
    guard.rescore(5)
    counted = [call for call in calls if call[2]]
    totals = {}
    for stage, calls_of_it in groupby(counted, key=lambda call: call[0]):
        done, total = zip(*((d, t) for _, d, t in calls_of_it), strict=True)
        assert done == tuple(range(total[0]))
        assert set(total) == {total[0]}
        totals[stage] = total[0]
    alive = sum(0 < c < n for c, n in zip(probe.correct, probe.scored, strict=True))
    assert totals == {"gradients": alive, "sampling the reference": 4}


@pytest.mark.usefixtures("faults")
def test_a_hook_that_raises_costs_nothing_but_the_showing():
    def broken(*call):
        raise OSError("no terminal")

    guard, calls = told(hook=broken)
    assert guard.probe(0).row_ids == make_guard().probe(0).row_ids
    assert not guard.failures
    assert len(calls) == 1  # it is not asked again


def test_a_hook_that_draws_random_numbers_leaves_no_trace_after_the_look():
    import random

    guard, _ = told(hook=lambda *call: random.random())
    state = random.getstate()
    guard.probe(0)
    assert random.getstate() == state


@pytest.mark.usefixtures("faults")
def test_a_lost_probe_is_over_as_well():
    class Broken(BanditPolicy):
        def generate(self, *args):
            raise RuntimeError("no memory")

    guard, calls = told(Broken(CONTEXTS, dim=3, seed=5))
    with pytest.warns(PassKGuardWarning, match="this probe is lost"):
        assert guard.probe(0) is None
    assert calls == [("sampling the reference", 0, 1), OVER]


def test_so_is_one_that_is_interrupted():
    class Interrupted(BanditPolicy):
        def log_probs(self, *args):
            raise KeyboardInterrupt

    guard, calls = told(Interrupted(CONTEXTS, dim=3, seed=5))
    with pytest.raises(KeyboardInterrupt):
        guard.probe(0)
    assert calls[-1] == OVER
