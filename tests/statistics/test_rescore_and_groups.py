"""Re-scoring between looks; floors for groups of prompts."""

import pytest
import torch
from tiny import BanditPolicy

from passk_guard import HeldOutPool, PassKGuard, PassKGuardConfig, PassKGuardWarning

CONTEXTS = 120


def make_guard(policy, **settings):
    settings = {"k": 4, "every": 5, **settings}
    rows = [{"prompt": str(i), "kind": "ab"[i % 2]} for i in range(CONTEXTS)]
    pool = HeldOutPool(rows)
    return PassKGuard(policy, pool, PassKGuardConfig(**settings), isolation=policy.isolated)


def push(policy, direction, size):
    """A step along the exact gradient of pass@1, summed with signs over contexts."""
    p = torch.stack([policy.success(x) for x in range(CONTEXTS)])
    (grad,) = torch.autograd.grad((direction * p).mean(), policy.weight)
    with torch.no_grad():
        policy.weight += size * grad


def level(policy, of=slice(None)):
    with torch.no_grad():
        return float(torch.stack([policy.success(x) for x in range(CONTEXTS)])[of].mean())


def test_a_rescore_follows_the_policy_without_sampling():
    torch.manual_seed(0)
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    guard = make_guard(policy)
    guard.probe(0)
    start, sampled = level(policy), policy.generated
    for step in range(1, 6):
        push(policy, torch.ones(CONTEXTS), 15.0)
        found = guard.rescore(step)
    assert policy.generated == sampled
    assert guard.rescores[-1] is found
    truth = level(policy) - start
    assert truth > 0.02
    assert abs(found.track.change - truth) < 3 * found.track.change_se
    assert found.drift.rescored


def test_a_loss_between_probes_raises_the_alarm_at_a_rescore():
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    guard = make_guard(policy, every=None, max_overhead=0.01)
    guard.probe(0)

    def train():
        for step in range(10, 100, 10):
            push(policy, torch.ones(CONTEXTS), -15.0)
            guard.rescore(step)

    with pytest.warns(PassKGuardWarning, match="alarm"):
        train()
    alarms = [r.alarm for r in guard.rescores if r.alarm]
    assert "level" in {kind for alarm in alarms for kind in alarm.fired}
    assert len(guard.history) == 1


def test_rescoring_often_tells_the_same_as_rescoring_once():
    """The same rollouts under the same last weights: the same sum, with the same error."""
    results = []
    for every in (1, 6):
        torch.manual_seed(0)
        policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
        guard = make_guard(policy)
        guard.probe(0)
        for step in range(1, 7):
            push(policy, torch.ones(CONTEXTS), 0.5)
            if step % every == 0:
                found = guard.rescore(step)
        results.append(found.track)
    often, once = results
    assert often.change == pytest.approx(once.change, abs=1e-9)
    assert often.change_se == pytest.approx(once.change_se, rel=1e-6)


@pytest.mark.usefixtures("faults")
def test_a_failed_rescore_costs_only_itself():
    class Flaky(BanditPolicy):
        broken = False

        def log_probs(self, *tokens):
            if self.broken:
                raise RuntimeError("CUDA out of memory")
            return super().log_probs(*tokens)

    torch.manual_seed(0)
    policy = Flaky(CONTEXTS, dim=3, seed=5)
    guard = make_guard(policy)
    guard.probe(0)
    policy.broken = True
    with pytest.warns(PassKGuardWarning, match="lost"):
        assert guard.rescore(5) is None
    policy.broken = False
    push(policy, torch.ones(CONTEXTS), 1.0)
    assert guard.rescore(6).drift.change > 0
    assert len(guard.failures) == 1


def test_a_rescore_and_a_probe_resume():
    def run(guard, steps):
        for step in steps:
            push(guard.policy, torch.ones(CONTEXTS), 0.5)
            guard.rescore(step) if step % 10 else guard.probe(step)

    settings = {"group_by": "kind"}
    whole = make_guard(BanditPolicy(CONTEXTS, dim=3, seed=5), **settings)
    run(whole, range(0, 40, 5))
    first = make_guard(BanditPolicy(CONTEXTS, dim=3, seed=5), **settings)
    run(first, range(0, 20, 5))
    second = make_guard(first.policy, **settings)
    second.load_state_dict(first.state_dict())
    run(second, range(20, 40, 5))
    assert [p.reading for p in second.history] == [p.reading for p in whole.history[2:]]
    assert [r.reading for r in second.rescores] == [r.reading for r in whole.rescores[2:]]


def test_a_group_that_falls_is_named_while_the_whole_stands():
    torch.manual_seed(0)
    policy = BanditPolicy(CONTEXTS, dim=CONTEXTS, seed=5)  # contexts hardly interfere
    with torch.no_grad():
        policy.features.copy_(torch.eye(CONTEXTS, dtype=torch.float64))
    guard = make_guard(policy, group_by="kind", num_generations=12)
    a, b = slice(0, None, 2), slice(1, None, 2)
    start = level(policy, a), level(policy, b)
    against_b = torch.ones(CONTEXTS)
    against_b[b] = -1.0

    def train():
        for step in range(0, 80, 5):
            guard.probe(step)
            push(policy, against_b, 12.0)

    with pytest.warns(PassKGuardWarning, match="pass@1 of 'b'") as caught:
        train()
    assert len(caught) == 1
    found = guard.history[-1]
    (alarm,) = [p.alarm for p in guard.history if p.alarm]
    assert alarm.fired == ("level of b",)
    assert set(found.groups) == {"a", "b"}
    assert found.groups["b"].change < -0.02 < 0 < found.groups["a"].change
    for of, label, began in ((a, "a", start[0]), (b, "b", start[1])):
        push(policy, against_b, -12.0)  # back to where the last probe saw it
        track = found.groups[label]
        assert abs(track.change - (level(policy, of) - began)) < 4 * track.change_se
        push(policy, against_b, 12.0)


def test_groups_share_the_false_alarm_chance():
    plain = make_guard(BanditPolicy(CONTEXTS, dim=3, seed=5))
    grouped = make_guard(BanditPolicy(CONTEXTS, dim=3, seed=5), group_by="kind")
    grouped, plain = (g._prober.detector.detectors["level"] for g in (grouped, plain))
    assert grouped.z > plain.z
