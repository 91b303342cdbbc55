"""Learning rates summed up, whatever the optimizer is."""

import json
import math
from types import SimpleNamespace

import pytest
import torch

from passk_guard.runtime.effort import Effort, EffortMeter


def optimizer(lr=1e-3, *others):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": r} for r in (lr, *others)]
    return torch.optim.SGD(groups)


def train(meter, opt, scheduler, steps, start=0):
    """As trainers do: the scheduler moves before the step is called over."""
    for step in range(start, start + steps):
        opt.step()
        scheduler.step()
        meter.stepped(step + 1)


def test_a_constant_rate_counts_steps():
    for rate in (1e-3, 7.0):
        meter = EffortMeter(lambda rate=rate: optimizer(rate))
        meter.stepped(0)
        for step in range(1, 11):
            meter.stepped(step)
        assert meter.taken(10) == Effort(pytest.approx(10), 1.0)
        assert meter.taken(10) == Effort(0.0, 1.0)


def test_each_step_counts_with_the_rate_that_it_was_taken_at():
    opt = optimizer(1.0, 0.25)
    scheduler = torch.optim.lr_scheduler.LambdaLR(opt, lambda step: [0.0, 1.0, 2.0, 4.0, 1.0][step])
    meter = EffortMeter(lambda: opt)
    assert meter.taken(0) == Effort(0.0)
    train(meter, opt, scheduler, 3)  # at 0, 1 and 2; the largest seen is 4
    assert meter.taken(3) == Effort(pytest.approx(3 / 4), 1.0)
    train(meter, opt, scheduler, 1, start=3)  # at 4
    assert meter.taken(4) == Effort(pytest.approx(1.0), 1.0)


def test_growth_is_that_of_the_largest_rate():
    opt = optimizer(1.0)
    meter = EffortMeter(lambda: opt)
    meter.taken(0)
    opt.param_groups[0]["lr"] = 5.0
    assert meter.taken(2) == Effort(pytest.approx(2 / 5), 5.0)
    opt.param_groups[0]["lr"] = 0.5
    assert meter.taken(4) == Effort(pytest.approx(2.0), 1.0)
    assert meter.taken(6) == Effort(pytest.approx(0.2), 1.0)


def raising():
    raise RuntimeError("no optimizer yet")


@pytest.mark.parametrize(
    "gives",
    [
        None,
        raising,
        lambda: SimpleNamespace(param_groups=[{"params": []}]),
        lambda: SimpleNamespace(param_groups=[{"lr": math.nan}]),
        lambda: SimpleNamespace(param_groups=[{"lr": "fast"}]),
    ],
)
def test_where_no_rate_is_seen_steps_count(gives):
    meter = EffortMeter(gives)
    assert meter.taken(0) == Effort(0.0)
    for step in (1, 2, 5):
        meter.stepped(step)
    assert meter.taken(10) == Effort(10.0, 1.0)


def test_a_rate_that_is_a_tensor_or_wrapped():
    inner = optimizer(1.0)
    inner.param_groups[0]["lr"] = torch.tensor(0.5)
    wrapped = SimpleNamespace(optimizer=inner, param_groups=inner.param_groups)
    meter = EffortMeter(lambda: wrapped)
    meter.taken(0)
    assert meter.taken(4) == Effort(pytest.approx(4.0))


def test_an_optimizer_that_comes_later_does_not_change_what_a_step_counts():
    found = []
    meter = EffortMeter(lambda: found[0])
    meter.taken(0)
    meter.stepped(3)
    found.append(optimizer(1e-5))
    meter.stepped(5)
    assert meter.taken(10) == Effort(pytest.approx(10.0), 1.0)


def test_a_step_told_twice_counts_once_and_training_may_begin_anew():
    meter = EffortMeter(lambda: optimizer())
    for step in (0, 1, 1, 2, 2, 2):
        meter.stepped(step)
    assert meter.taken(2) == Effort(pytest.approx(2.0))
    assert meter.taken(0) == Effort(0.0)
    assert meter.taken(3) == Effort(pytest.approx(3.0))


def test_it_resumes():
    opt = optimizer(1.0)
    one, other = EffortMeter(lambda: opt), EffortMeter(lambda: opt)
    one.taken(0)
    one.stepped(4)
    opt.param_groups[0]["lr"] = 3.0
    one.stepped(6)
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    other.stepped(6)  # as a resumed trainer does
    assert other.taken(9) == one.taken(9)
    assert other.state_dict() == one.state_dict()
