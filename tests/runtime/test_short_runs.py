"""What is said beside alarms: runs that are short for their budget, and runs that see nothing."""

import warnings
from dataclasses import replace

import pytest
import torch
from tiny import BanditPolicy

from passk_guard import HeldOutPool, PassKGuard, PassKGuardConfig, PassKGuardWarning
from passk_guard.runtime.schedule import plan_first_look

CONTEXTS = 64


class Scored(BanditPolicy):
    """Gives the scores that it is told to, and says right from a threshold on."""

    scores, threshold = None, 0.5

    def generate(self, rows, row_ids, n):
        groups = super().generate(rows, row_ids, n)
        if self.scores is None:
            return groups
        scores = torch.tensor(self.scores).repeat(n)[:n]
        success = (scores >= self.threshold).float()
        return [replace(group, success=success, rewards=scores) for group in groups]


def make_guard(scores=None, threshold=0.5, per_step=lambda: None, total=None, **settings):
    policy = Scored(CONTEXTS, dim=3, seed=5)
    policy.scores, policy.threshold = scores, threshold
    guard = PassKGuard(
        policy,
        HeldOutPool([{"prompt": str(i)} for i in range(CONTEXTS)]),
        PassKGuardConfig(**{"k": 4, "reference_prompts": 16, **settings}),
        isolation=policy.isolated,
        sampling={"success_threshold": threshold},
        rollouts_per_step=per_step,
    )
    guard.total_steps = total
    return guard


def warned(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PassKGuardWarning)
        call()
    return [str(w.message) for w in caught]


@pytest.mark.parametrize(
    ("scores", "threshold", "seen", "mend"),
    [
        ([0.0, 0.4], 0.5, "Rewards from 0 to 0.4, right from success_threshold=0.5", "=0.4; else"),
        ([1.0, 0.0], 2.0, "Rewards from 0 to 1, right from success_threshold=2", "=1; else"),
        ([1.0, 11.0], 0.5, "Rewards from 1 to 11, .* everything was right", "raise success_thr"),
    ],
)
def test_three_looks_without_signal_say_what_was_seen(scores, threshold, seen, mend):
    guard = make_guard(scores, threshold, every=5)
    told = [warned(lambda s=step: guard.probe(s)) for step in range(0, 30, 5)]
    assert [len(messages) for messages in told] == [0, 0, 1, 0, 0, 0]
    with pytest.warns(PassKGuardWarning, match=seen) as caught:
        warnings.warn(told[2][0], PassKGuardWarning, stacklevel=1)
    assert mend in str(caught[0].message)
    assert (
        "no signal in 3 looks in a row: of 16 held-out prompts, each with its last 6 rollouts"
        in told[2][0]
    )


def test_a_look_with_signal_starts_the_count_again():
    guard = make_guard([0.0], every=5)
    for step in (0, 5):
        assert not warned(lambda s=step: guard.probe(s))
    guard.policy.scores = None
    assert not warned(lambda: guard.probe(10))
    guard.policy.scores = [0.0]
    told = [warned(lambda s=step: guard.probe(s)) for step in (15, 20, 25)]
    assert [len(messages) for messages in told] == [0, 0, 1]


def test_a_run_of_two_blind_looks_says_so_at_its_end():
    guard = make_guard([0.0], every=5)
    guard.probe(0)
    guard.probe(5)
    assert "no signal in 2 looks in a row" in warned(guard.end)[0]
    seeing = make_guard(every=5)
    seeing.probe(0)
    assert not warned(seeing.end)


def test_the_first_look_stays_within_three_times_the_budget_or_says_so():
    for each in (1.0, 4.0):
        for budget in (0.1, 1.0, 3.0, 100.0):
            look = plan_first_look(each, 4, budget)
            assert 1 <= look.chunks <= 4
            assert look.seconds == look.chunks * each
            assert look.over == (look.seconds > 3 * budget)
            assert not look.over or look.chunks == 1


@pytest.fixture
def chunks(monkeypatch):
    """Chunks of four prompts: the reference has four. Gives how many of them were sampled."""
    for module in ("passk_guard.guard", "passk_guard.rollouts.sampling"):
        monkeypatch.setattr(f"{module}.CHUNK", 4)
    return lambda guard: round(guard.policy.generated / (4 * 6))


@pytest.mark.parametrize(
    ("per_step", "taken", "said"),
    [
        (128, 2, "more than that, with 2 of 4 parts of the reference's prompts"),
        (24, 1, "more than three times that, with 1 of 4 parts of the reference's prompts"),
    ],
)
def test_a_short_run_takes_a_part_of_the_reference_and_says_so(chunks, per_step, taken, said):
    guard = make_guard(per_step=lambda: per_step, total=10, max_overhead=0.02)
    (told,) = warned(lambda: guard.probe(0))
    assert chunks(guard) == taken
    assert guard.history[0].prompts == 4 * taken
    assert "this run is short for its budget: 2 % of 10 steps" in told
    assert said in told
    assert "Give every=1 for 11, whatever" in told


@pytest.mark.parametrize(
    ("total", "settings"), [(20, {"every": 5}), (None, {"max_overhead": 0.02}), (100_000, {})]
)
def test_a_fixed_interval_or_a_run_of_another_length_is_left_alone(chunks, total, settings):
    guard = make_guard(per_step=lambda: 128, total=total, **settings)
    assert not warned(lambda: guard.probe(0))
    assert chunks(guard) == 4


def test_few_looks_are_announced_as_soon_as_one_step_is_timed():
    guard = make_guard(total=60, max_overhead=0.02)  # what a step costs is not known
    warned(lambda: guard.probe(0))
    guard.schedule.trained(0.001)
    (told,) = warned(lambda: guard.due(1))
    assert "this run will see 1 probe" in told
    assert "times the whole run's budget" in told
    assert not warned(lambda: guard.due(2))  # once
    rich = make_guard(total=100_000, max_overhead=0.02)
    rich.probe(0)
    rich.schedule.trained(10.0)
    assert not warned(lambda: rich.due(1))
