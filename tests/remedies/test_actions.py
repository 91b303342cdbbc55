"""From alarm to action, on a bandit that is really trained."""

import pytest
import torch
from guarded_bandit import CONTEXTS, ascend
from tiny import BanditPolicy

from passk_guard import HeldOutPool, PassKGuard, PassKGuardConfig, PassKGuardWarning, PassKObjective
from passk_guard.objectives.mixes import TrainerMix


def make_guard(action, *, objective="new", say=lambda text: None, **settings):
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    if objective == "new":
        objective = PassKObjective(4)
    size = {"reference_prompts": CONTEXTS, "num_generations": 32}
    config = PassKGuardConfig(k=4, every=5, action=action, **{**size, **settings})
    rows = [{"prompt": str(i)} for i in range(CONTEXTS)]
    return PassKGuard(
        policy, HeldOutPool(rows), config, isolation=policy.isolated, objective=objective, say=say
    )


def fall(guard, until=60, lr=-40.0, start=0):
    for step in range(start, until, 5):
        guard.probe(step)
        ascend(guard.policy, 1, 5, lr=lr)


def test_mix_raises_lambda_after_the_alarm_and_not_before():
    said = []
    guard = make_guard("mix", say=said.append)
    fall(guard)
    alarm = next(p.step for p in guard.history if p.alarm)
    before = [p.pass1_weight for p in guard.history if p.step <= alarm]
    after = [p.pass1_weight for p in guard.history if p.step > alarm]
    assert not any(before)  # the probe that raises the alarm still sees the objective as it was
    assert 0 < after[0] <= 1
    assert max(after) > 0.5
    assert any("mixing pass@1 back in" in text for text in said)
    assert any("alarm" in text for text in said)  # no "warn": still said


@pytest.mark.simulation
def test_adjust_k_lowers_k_and_raises_it_again():
    guard = make_guard("adjust_k")
    fall(guard)
    lowered = guard.objective.k
    assert 1 <= lowered < 3
    for step in range(60, 400, 5):
        guard.probe(step)
        ascend(guard.policy, 1, 5, lr=40.0)
    assert guard.objective.k == 4
    assert guard.history[-1].k == 4
    assert any(p.k < 4 and p.k != int(p.k) for p in guard.history)  # fractional on the way


@pytest.mark.simulation
def test_a_healthy_run_is_not_acted_on():
    for action in ("mix", "adjust_k"):
        guard = make_guard(action)
        fall(guard, lr=3.0)
        assert all((p.k, p.pass1_weight) == (4, 0.0) for p in guard.history)


def test_checkpoint_and_stop_are_asked_for_once_per_episode():
    guard = make_guard(["checkpoint", "stop"])
    for step in range(0, 60, 5):
        guard.probe(step)
        asked, guard.requests = guard.requests, set()
        assert asked == ({"checkpoint", "stop"} if guard.history[-1].alarm else set())
        ascend(guard.policy, 1, 5, lr=-40.0)
    assert any(p.alarm for p in guard.history)


def test_actions_combine():
    calls = []
    guard = make_guard(["warn", "mix", lambda probe, guard: calls.append(probe.step)])
    with pytest.warns(PassKGuardWarning, match="The guard now takes its remedy") as caught:
        fall(guard)
    assert len(caught) == len(calls) == 1
    assert guard.objective.pass1_weight > 0


@pytest.mark.long
def test_resume_in_the_middle_of_an_intervention():
    whole = make_guard("mix")
    fall(whole, 90)
    first = make_guard("mix")
    fall(first, 60)
    second = make_guard("mix")
    second.policy.load_state_dict(first.policy.state_dict())
    second.load_state_dict(first.state_dict())
    assert second.objective.pass1_weight == first.objective.pass1_weight > 0
    fall(second, 90, start=60)
    assert [p.pass1_weight for p in second.history] == [
        p.pass1_weight for p in whole.history if p.step >= 60
    ]


def test_a_number_as_floor():
    guard = make_guard("warn", floor=0.9)
    with pytest.warns(PassKGuardWarning, match=r"pass@1 0\.900 -> "):
        guard.probe(0)
    (probe,) = guard.history
    assert probe.alarm.fired == ("level",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"action": "mixx"}, "action='mixx' is not known. Choose 'warn', 'mix'"),
        ({"action": ["mix", "adjust_k"]}, "Choose one remedy"),
        ({"action": "adjust_k", "objective": None}, "Pass objective='pkpo'"),
        ({"action": "adjust_k", "objective": TrainerMix(4)}, "Pass objective='pkpo'"),
        (
            {"action": "adjust_k", "objective": PassKObjective(4, estimator="maxrl")},
            "lowers the k of a pass@k objective",
        ),
        ({"action": "mix", "objective": None}, "action='mix' needs objective="),
        (
            {"action": "warn", "floor": "first"},
            "floor='first' is not known. Choose 'start', 'best'",
        ),
        ({"action": "warn", "floor": 62}, "floor must lie between 0 and 1, got 62"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        make_guard(**settings)


def test_weights_in_force_follow_lambda_and_k():
    torch.manual_seed(0)
    guard = make_guard("warn")
    at_zero = guard.probe(0)
    assert at_zero.update_alignment.inner == pytest.approx(at_zero.alignment.inner)
    guard.objective.pass1_weight = 1.0
    at_one = guard.probe(5)
    assert at_one.update_alignment.inner == pytest.approx(at_one.update_alignment.pass1_norm2)
