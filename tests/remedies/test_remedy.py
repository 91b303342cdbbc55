"""From λ to a live objective and back: what a controller is told, and what a checkpoint keeps."""

import json

import numpy as np
import pytest
import torch
from guarded_bandit import CONTEXTS, ascend
from tiny import BanditPolicy

from passk_guard import HeldOutPool, PassKGuard, PassKGuardConfig, PassKGuardWarning, PassKObjective
from passk_guard.detection import Cause
from passk_guard.remedies import CONTROLLERS, ControlReading, register_controller
from passk_guard.remedies.remedy import RemedyChange
from passk_guard.reporting.sentences import remedy_message
from passk_guard.runtime.effort import Effort

pytestmark = pytest.mark.filterwarnings("ignore:passk-guard")


class Recorder:
    """λ = 0.6 from the first alarm on; keeps what it is told."""

    def __init__(self, tolerance):
        self.value, self.told = 0.0, []
        self.in_vain, self.gives_up_at = False, 1000

    def update(self, reading):
        self.told.append(reading)
        self.value = 0.6 if reading.conflicts else self.value
        self.in_vain = reading.step >= self.gives_up_at
        return self.value

    def state_dict(self):
        return {"mine": self.value}

    def load_state_dict(self, state):
        self.value = state["mine"]


@pytest.fixture(autouse=True)
def recorder():
    register_controller("recorder", Recorder)
    yield
    del CONTROLLERS._entries["recorder"]


def make_guard(action="mix", controller="recorder", optimizer=None, **settings):
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    rows = [{"prompt": str(i), "kind": "even" if i % 2 == 0 else "odd"} for i in range(CONTEXTS)]
    usual = {"k": 4, "reference_prompts": CONTEXTS, "every": 5, "floor": 0.99}
    config = PassKGuardConfig(action=action, controller=controller, **(usual | settings))
    return PassKGuard(
        policy,
        HeldOutPool(rows),
        config,
        isolation=policy.isolated,
        objective=PassKObjective(4),
        optimizer=optimizer,
    )


def told(guard):
    return guard._remedy.controller.told


def test_what_a_controller_is_told():
    guard = make_guard(group_by="kind")
    guard.probe(0)
    ascend(guard.policy, 1, 2)
    guard.rescore(5)
    first, second = told(guard)
    assert isinstance(first, ControlReading)
    assert (first.step, second.step) == (0, 5)
    assert (first.drift, first.share, first.effort) == (None, 0.0, Effort(0.0))
    assert first.conflicts
    assert second.share == 0.6
    assert second.effort == Effort(5.0)
    assert second.drift is guard.rescores[0].drift
    assert second.track is guard.rescores[0].track
    assert set(second.groups) == set(second.group_drifts) == {"even", "odd"}
    parts = [second.group_drifts[label] for label in ("even", "odd")]
    assert np.mean([part.change for part in parts]) == pytest.approx(second.drift.change)


def test_the_effort_is_that_of_the_optimizer_between_looks():
    opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    guard = make_guard(optimizer=lambda: opt)
    for step in range(11):
        if guard.due(step):
            guard.probe(step)
        opt.param_groups[0]["lr"] = 0.5 if step < 7 else 0.05
    assert [reading.effort.steps for reading in told(guard)] == pytest.approx([0, 5, 3.2])


def test_adjust_k_tells_the_share_that_is_in_force():
    guard = make_guard("adjust_k")
    guard.probe(0)
    k = guard.objective.k
    assert 1 < k < 4
    assert k != pytest.approx(4**0.4)  # what it is where nothing was probed
    guard.rescore(5)
    assert told(guard)[-1].share == pytest.approx(0.6)
    assert guard.objective.k == pytest.approx(k)  # the same counts as at the probe


def test_a_remedy_that_does_not_help_is_said_once():
    guard, said = make_guard(), []
    guard._tell = said.append
    guard.probe(0)
    guard._remedy.controller.gives_up_at = 5
    guard.rescore(5)
    guard.rescore(6)
    changes = [event.change for event in said if hasattr(event, "change")]
    assert [(change.on, change.in_vain) for change in changes] == [(True, False), (False, True)]
    assert "mixing pass@1 in has not been seen to help" in remedy_message(5, changes[-1])
    lowered = RemedyChange("adjust_k", False, 0.0, 8, in_vain=True)
    assert "a lower k has not been seen to help" in remedy_message(5, lowered)
    assert "off again" in remedy_message(5, RemedyChange("mix", False, 0.0, 8))


@pytest.mark.parametrize("action", ["mix", "adjust_k"])
def test_another_controller_starts_afresh(action):
    one, other = make_guard(action, "mpc"), make_guard(action)
    one.probe(0)
    assert (one.objective.k, one.objective.pass1_weight) != (4, 0.0)
    with pytest.warns(PassKGuardWarning, match="controller: mpc -> recorder"):
        taken = other.load_state_dict(one.state_dict())
    assert taken.afresh == ("remedy",)
    assert (other.objective.k, other.objective.pass1_weight) == (4, 0.0)


def test_what_is_kept_is_plain_and_whole():
    guard, other = make_guard("adjust_k", "mpc"), make_guard("adjust_k", "mpc")
    guard.probe(0)
    ascend(guard.policy, 1, 2)
    guard.rescore(5)
    kept = json.loads(json.dumps(guard._remedy.state_dict()))
    other._remedy.load_state_dict(kept)
    assert other._remedy.state_dict() == guard._remedy.state_dict()


def test_a_remedy_acts_where_pass1_falls_although_nothing_opposes_it():
    guard = make_guard(floor="start", reference_prompts=64)
    policy = guard.policy  # one action is right everywhere: what helps one prompt helps all
    with torch.no_grad():
        policy.features[:, 0], policy.right[:] = 2.0, 0
        policy.weight *= 0.2
        policy.weight[0, 0] += 0.3
    assert guard.probe(0).alarm is None
    assert guard.pass1_weight == 0.0
    ascend(policy, 1, steps=1, lr=-2.0)  # whatever it is that does so
    look = guard.probe(5)
    assert look.alarm.cause is Cause.FALLING
    assert guard.pass1_weight == 0.6
