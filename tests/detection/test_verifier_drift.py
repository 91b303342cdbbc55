"""A verifier that changes is named; one that disagrees with itself, but steadily, is not."""

import asyncio
import math
import warnings

import numpy as np
import pytest
import torch
from guarded_bandit import CONTEXTS
from judged import Judge, make_guard
from tiny import BanditPolicy

from passk_guard import PassKGuardWarning
from passk_guard.detection.named_states import NamedState
from passk_guard.detection.verifier_check import VerifierCheck
from passk_guard.detection.verifier_drift import CHANCE, Recheck, verifier_drift
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.rollouts.verified_again import fixed_rollouts
from passk_guard.rollouts.verified_policy import VerifiedPolicy

N = 128


# The test by itself ---------------------------------------------------------------------------


def judge(rng, noise, changed=0.0, since=10**9, looks=40, uneven=False):
    """Rechecks of a judge that errs with probability ``noise``, and changes its mind for good."""
    errs = rng.beta(0.2, 0.2 / noise - 0.2, N) if uneven else np.full(N, noise)
    truth, moved = rng.random(N) < 0.5, rng.random(N) < changed
    first = truth ^ (rng.random(N) < errs)
    for step in range(looks):
        now = truth ^ (rng.random(N) < errs) ^ (moved & (step >= since))
        lost, won = (first & ~now).sum(), (now & ~first).sum()
        yield Recheck(step, N, int(lost), int(won))


def named_after(looks, since=0):
    seen = []
    for look in looks:
        seen.append(look)
        drift = verifier_drift(seen)
        if drift is not None and drift.surely:
            return len(seen) - since
    return None


@pytest.mark.parametrize(
    ("noise", "changed", "since", "most"),
    [(0.0, 0.05, 10, 5), (0.0, 0.1, 3, 4), (0.01, 0.1, 10, 8), (0.05, 0.2, 10, 8)],
)
def test_a_judge_that_changes_its_mind_is_named_within_a_few_probes(noise, changed, since, most):
    rng = np.random.default_rng(0)
    found = [named_after(judge(rng, noise, changed, since, since + most), since) for _ in range(60)]
    assert sum(after is not None and after > 0 for after in found) >= 0.8 * 60
    assert not any(after is not None and after <= 0 for after in found)


@pytest.mark.simulation
@pytest.mark.parametrize(("noise", "uneven"), [(0.0, False), (0.053, False), (0.1, True)])
def test_a_steady_judge_is_not_named_over_a_hundred_looks(noise, uneven):
    """At 1 % per run, 60 runs name 4 or more in 0.3 % of cases."""
    rng = np.random.default_rng(1)
    runs = [named_after(judge(rng, noise, looks=100, uneven=uneven)) for _ in range(60)]
    assert sum(after is not None for after in runs) < 4


@pytest.mark.simulation
def test_the_baselines_own_error_counts():
    """Negative control: against the rate of the first recheck, as if it were known, many are."""
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(100):
        first, *later = judge(rng, 0.02, looks=100)
        base = (first.others + 0.5) / (N + 1)
        x = np.array([look.others for look in later])
        ratio = x * math.log(1.5) + (N - x) * math.log((1 - 1.5 * base) / (1 - base))
        total = np.maximum.accumulate(ratio.cumsum())[-1]
        wrong += total > math.log(1 / CHANCE)
    assert wrong >= 10  # one is what was promised


def test_the_evidence_is_a_martingale_at_most():
    """Two looks, everything enumerated: its mean over a steady verifier's counts is at most 1.

    The bound from the first look misses the truth with a chance that is taken off.
    """
    n = 12
    for rate in (0.02, 0.1, 0.3, 0.6):
        mean = missed = 0.0
        chance = [math.comb(n, k) * rate**k * (1 - rate) ** (n - k) for k in range(n + 1)]
        for a in range(n + 1):
            given = 0.0
            for b in range(n + 1):
                drift = verifier_drift([Recheck(0, n, a, 0), Recheck(1, n, 0, b)])
                given += chance[b] * math.exp(drift.evidence)
            if given > 1 + 1e-9:
                missed += chance[a]
            else:
                mean += chance[a] * given
        assert mean <= 1
        assert missed <= CHANCE / 2 * 0.5  # of the first look's share of it


def test_points_are_of_pass_at_1_and_of_the_right_sign():
    steady = [Recheck(step, 128, 0, 0) for step in range(10)]
    harsher = [Recheck(step, 128, 16, 0) for step in range(10, 14)]
    drift = verifier_drift([*steady, *harsher])
    assert drift.surely
    assert drift.since == 10
    assert drift.points == pytest.approx(-16 / 128)
    assert drift.disagreement == pytest.approx(16 / 128)
    assert drift.baseline == 0
    milder = [Recheck(step, 128, 0, 16) for step in range(10, 14)]
    assert verifier_drift([*steady, *milder]).points == pytest.approx(16 / 128)
    assert verifier_drift(steady[:1]) is None
    assert verifier_drift([Recheck(0, 0, 0, 0)] * 5) is None


# Which rollouts ---------------------------------------------------------------------------------


def test_rollouts_are_spread_over_prompts_whatever_their_verdict():
    ids = torch.arange(8).view(4, 2)
    ones = torch.ones_like(ids)
    verdicts = torch.tensor([torch.nan, 1.0, 1.0, 0.0])
    groups = [
        RolloutGroup(i, ids, ones, ones, verdicts, completions=("a", "b", object(), [{"d": 1}]))
        for i in (3, 4)
    ]
    chosen = fixed_rollouts(groups, 3)
    assert [(one.row, one.completion) for one in chosen] == [(3, "b"), (4, "b"), (3, [{"d": 1}])]
    assert chosen[0].completion_ids == (2, 3)  # what no checkpoint can keep is left out
    assert [one.right for one in chosen] == [True, True, False]
    assert groups[0].scorable().completions == groups[0].completions[1:]
    assert groups[0].first(2).completions == ("a", "b")


# A guard's run ----------------------------------------------------------------------------------


def test_a_judge_that_changes_half_way_through_a_run_is_named():
    judge, said = Judge(changed=0.05), []
    guard = make_guard(judge, said=said)
    for step in range(0, 80, 5):
        judge.changes = step >= 40
        guard.probe(step)
        if step == 35:
            assert guard.states == ()
    drift = guard.history[-1].verifier
    named = [p.step for p in guard.history if p.verifier is not None and p.verifier.surely]
    assert 40 <= named[0] <= 60
    assert guard.states == (NamedState.VERIFIER_DRIFT,)
    (text,) = [one for one in said if "verifier" in one]
    assert "the verifier has changed. Of 128 rollouts" in text
    assert "0.0% before" in text
    assert drift.baseline == 0
    assert drift.since == 40
    assert 0.02 < drift.disagreement < 0.12
    assert not any("verifier" in str(p.conflicts) for p in guard.history)
    # One look's own rollouts, the fixed ones besides: twice at none, once at each.
    assert judge.calls == [1024, 128] * len(guard.history)


@pytest.mark.parametrize("looks", [25, pytest.param(100, marks=pytest.mark.simulation)])
def test_a_noisy_but_steady_judge_is_not_named(looks):
    """It disagrees with itself in 10 % of verdicts."""
    guard = make_guard(Judge(noise=0.053))
    for step in range(looks):
        guard.probe(step)
    drift = guard.history[-1].verifier
    assert guard.states == ()
    assert drift.rollouts == N
    counts = guard.state_dict()["named states"]["state"]["verifier"]["rechecks"]
    assert 0.05 < sum(c["lost"] + c["won"] for c in counts) / (N * looks) < 0.15


def test_it_costs_little_and_no_more_than_an_eighth():
    judge = Judge()
    guard = make_guard(judge, prompts=8)
    for step in range(3):
        guard.probe(step)
    assert judge.calls == [128, 16, 128, 16, 128, 16]


def test_a_policy_that_verifies_by_itself_is_not_asked():
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    guard = make_guard(None, policy)
    assert guard.probe(0).verifier is None
    assert guard.probe(5).verifier is None
    state = guard.state_dict()["named states"]["state"]["verifier"]
    assert state == {"rollouts": [], "rechecks": []}


def test_a_judge_may_be_async():
    judge = Judge()

    async def later(**arguments):
        await asyncio.sleep(0)
        return judge(**arguments)

    guard = make_guard(later)
    guard.probe(0)
    assert guard.probe(5).verifier.disagreement == 0
    assert judge.calls == [1024, 128] * 2


@pytest.mark.usefixtures("faults")
def test_a_judge_that_fails_the_check_costs_the_check_alone():
    judge = Judge()
    guard = make_guard(judge)
    guard.probe(0)
    inner, verified = VerifiedPolicy._verify_again, []

    def fails(self, *rollouts):
        verified.append(1)
        judge.broken = True
        try:
            return inner(self, *rollouts)
        finally:
            judge.broken = False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VerifiedPolicy, "_verify_again", fails)
        with pytest.warns(PassKGuardWarning, match="could not be checked.*no judge"):
            assert guard.probe(5).verifier is None
        assert guard.probe(10).pass_at_1 > 0  # it is said once, until it works again
    assert len(verified) == 2
    assert guard.failures == []
    assert guard.probe(15).verifier.rollouts == N
    strict = make_guard(judge, on_error="raise")
    strict.probe(0)
    judge.broken = True
    with pytest.raises(ConnectionError):
        strict.probe(5)


@pytest.mark.parametrize("resumed", [False, True])
def test_the_check_survives_a_resume(tmp_path, resumed):
    judge = Judge(changed=0.3)
    guard = make_guard(judge)
    for step in (0, 5, 10):
        guard.probe(step)
    if resumed:
        torch.save(guard.state_dict(), tmp_path / "state.pt")
        guard = make_guard(judge)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            guard.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    judge.changes = True
    drift = guard.probe(15).verifier
    assert drift.since == 15
    assert drift.surely
    assert guard.states == (NamedState.VERIFIER_DRIFT,)


def test_the_texts_are_not_kept_with_the_stored_rollouts():
    guard = make_guard(Judge())
    guard.probe(0)
    guard.probe(5)
    levels = guard._prober.levels
    stored = [*levels._reference.groups, *levels._last.groups]
    assert all(group.completions is None for group in stored)


def test_a_policy_without_the_method_has_no_check():
    class Bare:
        pass

    check = VerifierCheck(Bare(), [], strict=True)
    assert check.look(0, []) is None
