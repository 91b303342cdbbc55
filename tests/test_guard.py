"""The guard without any trainer, on a bandit that is really trained."""

import pytest
import torch
from guarded_bandit import CONTEXTS, ascend, make_guard
from tiny import BanditPolicy

from passk_guard import HeldOutPool, PassKGuard, PassKGuardConfig, PassKGuardWarning
from passk_guard.detection.alarm import Alarm, AlarmKind
from passk_guard.detection.cause import Cause
from passk_guard.reporting.alarm_sentences import alarm_message
from passk_guard.statistics.track import Track


def test_a_probe_holds_everything_a_user_reads():
    guard = make_guard()
    first, second = guard.probe(0), guard.probe(5)
    assert guard.history == [first, second]
    assert first.drift is None
    assert second.drift.change == pytest.approx(0, abs=1e-9)  # nothing was trained
    assert [a.k for a in first.curve] == list(range(1, 6))
    assert first.alignment.k == 4
    assert 0 <= first.pass_at_1 <= first.pass_at_k <= 1
    assert first.track.low <= first.track.pass_at_1 <= first.track.high
    assert len(first.row_ids) == len(first.alignment.agreement) == first.prompts == 16
    assert first.seconds > 0


def test_gradients_that_do_not_fit_are_sketched_and_it_says_so():
    policy, said = BanditPolicy(CONTEXTS, dim=3, seed=5), []

    def guard(memory_limit):
        pool = HeldOutPool([{"prompt": "a"}] * CONTEXTS)
        config = PassKGuardConfig(k=4, reference_prompts=16, memory_limit=memory_limit)
        return PassKGuard(policy, pool, config, isolation=policy.isolated, say=said.append)

    exact = guard(16 * 4 * 12).probe(0)
    assert "sketch" not in str(said)
    said.clear()
    sketched = guard(16 * 4 * 12 - 1).probe(0)
    assert "compared by sketches (standard error of a cosine about 0.01)" in said[0]
    assert sketched.correct == exact.correct
    # Twelve parameters in 16384 buckets: hardly any collide, or none.
    assert sketched.alignment.z == pytest.approx(exact.alignment.z, rel=0.2)


def test_it_measures_without_training_anything():
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    weight = policy.weight.detach().clone()
    state = torch.get_rng_state()
    make_guard(policy).probe(0)
    assert torch.equal(policy.weight, weight)
    assert policy.weight.grad is None
    assert torch.equal(torch.get_rng_state(), state)


def test_the_same_seed_gives_the_same_history():
    a, b = make_guard(), make_guard()
    torch.rand(3)
    for guard in (a, b):
        for step in (0, 5, 10):
            guard.probe(step)
    assert [p.pass_at_1 for p in a.history] == [p.pass_at_1 for p in b.history]
    assert [p.alignment.z for p in a.history] == [p.alignment.z for p in b.history]
    other = make_guard(seed=1)
    other.probe(0)
    assert other.history[0].alignment.z != a.history[0].alignment.z


def test_pass1_training_raises_no_alarm_and_the_track_follows():
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    guard = make_guard(policy, watch="target_k", k=1, num_generations=8, reference_prompts=CONTEXTS)
    for step in range(0, 60, 5):
        guard.probe(step)
        ascend(policy, 1, 5)
    assert not any(p.alarm for p in guard.history)
    truth = float(torch.stack([policy.success(x).detach() for x in range(CONTEXTS)]).mean())
    guard.probe(60)
    last = guard.history[-1].track
    assert last.low - 0.02 < truth < last.high + 0.02
    assert last.change > 0.02


def falling(**settings):
    """Descent on pass@1: pass@1 surely falls."""
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    size = {"reference_prompts": CONTEXTS, "num_generations": 32}
    guard = make_guard(policy, **size, **settings)

    def train():
        for step in range(0, 60, 5):
            guard.probe(step)
            ascend(policy, 1, 5, lr=-40.0)

    with pytest.warns(PassKGuardWarning) as caught:
        train()
    return guard, [str(w.message) for w in caught]


def test_one_warning_per_episode_with_figures_and_rows():
    guard, messages = falling()
    alarms = [p.alarm for p in guard.history if p.alarm]
    assert len(alarms) == len(messages) == 1
    assert "level" in alarms[0].fired
    assert alarms[0].message in messages[0]
    assert alarms[0].track.change < -0.01
    assert "pass@1" in messages[0]
    assert all(p.conflict for p in guard.history if p.step >= alarms[0].step)


@pytest.mark.parametrize("log_prompts", [False, True])
def test_prompt_text_stays_out_of_messages_unless_asked_for(log_prompts):
    config = PassKGuardConfig(log_prompts=log_prompts)
    track = Track(0.5, 0.05, 0.4, 0.6, 0.6, -0.1, 0.01)
    rows = [{"prompt": "the secret question"}]
    alarm = Alarm(7, (AlarmKind("level"),), track, {}, Cause.OPPOSED, None, None, (0,))
    message = alarm_message(alarm, config, rows)
    assert ("secret" in message) == log_prompts
    assert "rows that carry it: 0" in message


@pytest.mark.usefixtures("faults")
def test_callables_run_once_and_may_fail():
    calls = []

    def note(probe, guard):
        calls.append((probe.step, guard.k))

    def broken(probe, guard):
        raise OSError("no pager")

    _, messages = falling(action=["warn", note, broken])
    assert len(calls) == 1
    assert any("raised OSError: no pager" in m for m in messages)


@pytest.mark.usefixtures("faults")
@pytest.mark.parametrize("what", ["raises", "nan log-probs", "nothing scored", "too few groups"])
def test_a_failed_probe_costs_that_probe_only(what):
    class Faulty(BanditPolicy):
        broken = False

        def generate(self, rows, row_ids, n):
            if self.broken and what == "raises":
                raise ValueError("verifier on strike")
            groups = super().generate(rows, row_ids, n)
            if self.broken and what == "nothing scored":
                for group in groups:
                    group.success[:] = float("nan")
            return groups[:-1] if self.broken and what == "too few groups" else groups

        def log_probs(self, *tokens):
            scores = super().log_probs(*tokens)
            return scores * float("nan") if self.broken and what == "nan log-probs" else scores

    policy = Faulty(CONTEXTS, dim=3, seed=5)
    guard = make_guard(policy)
    guard.probe(0)
    policy.broken = True
    state = torch.get_rng_state()
    with pytest.warns(PassKGuardWarning, match="this probe is lost"):
        assert guard.probe(5) is None
    assert torch.equal(torch.get_rng_state(), state)
    assert policy.weight.grad is None
    assert not policy.weight._post_accumulate_grad_hooks
    policy.broken = False
    assert guard.probe(10) is not None
    assert [f.step for f in guard.failures] == [5]
    assert [p.step for p in guard.history] == [0, 10]


@pytest.mark.usefixtures("faults")
@pytest.mark.parametrize("where", ["generate", "log_probs"])
def test_what_happened_during_a_lost_probe_is_not_lost(where):
    class Faulty(BanditPolicy):
        broken = False

        def generate(self, rows, row_ids, n):
            if self.broken and where == "generate":
                raise ValueError("verifier on strike")
            return super().generate(rows, row_ids, n)

        def log_probs(self, *tokens):
            if self.broken and where == "log_probs":
                raise ValueError("out of memory")
            return super().log_probs(*tokens)

    policy = Faulty(CONTEXTS, dim=3, seed=5)
    guard = make_guard(policy, action=lambda probe, guard: None)
    guard.probe(0)
    start = float(torch.stack([policy.success(x).detach() for x in range(CONTEXTS)]).mean())
    ascend(policy, 1, 5, lr=10.0)
    policy.broken = True
    with pytest.warns(PassKGuardWarning, match="lost"):
        guard.probe(5)
    policy.broken = False
    ascend(policy, 1, 1, lr=0.01)
    end = float(torch.stack([policy.success(x).detach() for x in range(CONTEXTS)]).mean())
    probe = guard.probe(10)
    assert end - start > 0.02
    assert abs(probe.drift.change - (end - start)) < 3 * probe.drift.se
    assert probe.drift.change > 0.01


def test_ctrl_c_passes_through_a_probe_and_leaves_no_trace():
    class Interrupted(BanditPolicy):
        def log_probs(self, *tokens):
            raise KeyboardInterrupt

    policy = Interrupted(CONTEXTS, dim=3, seed=5)
    state = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        make_guard(policy).probe(0)
    assert torch.equal(torch.get_rng_state(), state)
    assert not policy.weight._post_accumulate_grad_hooks


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_right_and_all_wrong_are_results_not_failures(value):
    class Settled(BanditPolicy):
        def generate(self, rows, row_ids, n):
            groups = super().generate(rows, row_ids, n)
            for group in groups:
                group.success[:] = value
            return groups

    guard = make_guard(Settled(CONTEXTS, dim=3, seed=5))
    for step in range(0, 100, 5):
        if step == 10:
            with pytest.warns(PassKGuardWarning, match="no signal in 3 looks in a row"):
                probe = guard.probe(step)
        else:
            probe = guard.probe(step)
        assert probe.blind
        assert probe.no_signal == 1.0
        assert probe.alignment is None
        assert probe.curve == []
        assert probe.alarm is None
        assert probe.gramian.any() == False  # noqa: E712
    assert guard.states == ("vanishing signal",)
    assert not guard.failures


def test_resume_continues_as_if_uninterrupted(tmp_path):
    def run(guard, policy, steps):
        for step in steps:
            guard.probe(step)
            ascend(policy, 4, 2)

    whole_policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    whole = make_guard(whole_policy)
    run(whole, whole_policy, range(0, 40, 5))

    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    first = make_guard(policy)
    run(first, policy, range(0, 20, 5))
    torch.save(first.state_dict(), tmp_path / "passk_guard.pt")
    second = make_guard(policy)
    second.load_state_dict(torch.load(tmp_path / "passk_guard.pt", weights_only=True))
    run(second, policy, range(20, 40, 5))
    assert [p.track for p in second.history] == [p.track for p in whole.history[4:]]
    assert [p.row_ids for p in second.history] == [p.row_ids for p in whole.history[4:]]
    assert [p.cosine for p in second.history] == [p.cosine for p in whole.history[4:]]


def test_a_pool_too_small_to_compare_prompts():
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    pool = HeldOutPool([{"prompt": "a"}] * 3)
    with pytest.raises(ValueError, match="must hold at least 4 rows"):
        PassKGuard(policy, pool, PassKGuardConfig(), isolation=policy.isolated)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_generations": 4}, "k=4 needs more than 4 rollouts"),
        ({"reference_prompts": 2}, "reference_prompts must be a whole number, at least 4"),
        ({"parameters": "no_such"}, "selects no trainable parameter"),
    ],
)
def test_settings_that_do_not_fit_together_fail_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        make_guard(**settings)
