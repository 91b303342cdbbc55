"""Episodes of alarms, and the level alarm by simulation beside a rule that fails."""

import copy
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from passk_guard.detection.alarm import AlarmKind
from passk_guard.detection.cause import Cause, find_cause
from passk_guard.detection.detector import LookEvidence
from passk_guard.detection.episodes import ConflictDetector
from passk_guard.detection.level import level_threshold
from passk_guard.statistics.alignment import Alignment
from passk_guard.statistics.cosine import Cosine
from passk_guard.statistics.kept_batches import Foretold
from passk_guard.statistics.pace import Pace
from passk_guard.statistics.track import Fix, Increment, PairedTrack, Track


def level_only(track, groups=None):
    """A look that found no gradient and no drift."""
    return LookEvidence(update=None, track=track, groups=groups or {})


def wandering_run(rng, looks, *, sd_wander, sd_increment, loss_per_look=0.0):
    """Truth wanders; increments and fixes are seen with noise of a stated size."""
    track, truth, error = PairedTrack(0.6, 0.005**2), 0.0, rng.normal(0, 0.005)
    yield truth, track.now()
    for _ in range(1, looks):
        step = rng.normal(0, sd_wander) - 0.1 * truth - loss_per_look
        truth += step
        increment = None
        if sd_increment is not None:
            increment = Increment(step + rng.normal(0, sd_increment), sd_increment**2)
        fix = Fix(truth - error + rng.normal(0, 0.012), 0.012**2)
        track.update(increment, fix, 10)
        yield truth, track.now()


@pytest.mark.parametrize("sd_increment", [0.002, None])
def test_track_covers_and_level_alarm_keeps_quiet_on_a_wandering_run(sd_increment):
    rng = np.random.default_rng(0)
    covered, alarms = [], 0
    for _ in range(40):
        detector = ConflictDetector(1e-3, 0.01)
        for truth, track in wandering_run(rng, 100, sd_wander=0.002, sd_increment=sd_increment):
            if track.change_se > 0:
                covered.append(abs(track.change - truth) < 1.96 * track.change_se)
            alarms += bool(detector.update(level_only(track))[0])
    assert 0.92 < np.mean(covered) < 0.995
    assert alarms <= 2  # 4000 looks at 5e-4 for this alarm alone


def test_a_plain_interval_against_the_first_look_fails_the_same_test():
    rng = np.random.default_rng(0)
    runs = 0
    for _ in range(40):
        first = 0.6 + rng.normal(0, 0.035)
        later = 0.6 + rng.normal(0, 0.035, 30)
        runs += bool(np.any(later + 1.96 * 0.035 < first))
    assert runs > 4


@pytest.mark.parametrize(("sd_increment", "most"), [(0.002, 0.03), (None, 0.05)])
def test_a_real_loss_fires_the_level_alarm_within_a_few_points(sd_increment, most):
    rng = np.random.default_rng(0)
    lost = []
    for _ in range(20):
        detector = ConflictDetector(1e-3, 0.01)
        run = wandering_run(rng, 40, sd_wander=0.001, sd_increment=sd_increment, loss_per_look=0.01)
        for truth, track in run:
            if detector.update(level_only(track))[0]:
                lost.append(-truth)
                break
    assert len(lost) == 20
    assert np.mean(lost) < most


def quiet(change=0.0):
    return Track(0.6 + change, 0.025, 0.55, 0.65, 0.6, change, 0.001)


def test_one_alarm_per_episode_and_clearing_is_said():
    detector = ConflictDetector(1e-3, 0.01)
    assert detector.update(level_only(quiet(-0.05))) == (("level",), False)
    assert detector.update(level_only(quiet(-0.06))) == ((), False)
    assert detector.update(level_only(quiet(-0.02))) == ((), False)  # still beyond the tolerance
    assert detector.update(level_only(quiet(0.0))) == ((), True)
    assert detector.update(level_only(quiet(-0.05))) == (("level",), False)  # a new episode


def test_thresholds():
    assert level_threshold(5e-4) == pytest.approx(3.29, abs=0.01)


def opposing(track, z=-9.0):
    """A look whose inner product is that many standard errors below 0."""
    cov = np.eye(3)
    found = Alignment(4, z, 1.0, z - 2, z + 2, z, -0.5, 1.0, 1.0, np.zeros(4), 0.0, 1.0, cov)
    return LookEvidence(update=found, track=track, groups={}, foretold=Foretold(0.0, 1.0))


def test_a_sure_loss_escalates_an_open_leading_alarm_once():
    detector = ConflictDetector(1e-3, 0.01)
    fired = [detector.update(opposing(quiet()))[0] for _ in range(4)]
    assert [kinds for kinds in fired if kinds] == [("alignment",)]
    assert detector.update(opposing(quiet(-0.2))) == (("level",), False)
    assert detector.update(opposing(quiet(-0.2))) == ((), False)
    assert detector.update(opposing(quiet(0.0))) == ((), False)  # the leading one is open still
    assert detector.update(opposing(quiet(-0.2))) == ((), False)  # the same episode
    assert detector.active == {"alignment", "level"}
    other = ConflictDetector(1e-3, 0.01)
    other.load_state_dict(detector.state_dict())
    assert other.update(level_only(quiet(-0.2))) == ((), False)


@pytest.mark.parametrize(
    ("pace", "z", "change", "fires"),
    [
        ((0.42, 0.1, 0.7), -0.8, 0.0, False),  # pass@1 surely rises
        ((0.42, 0.1, 0.7), -3.0, 0.0, False),
        ((0.02, -0.1, 0.1), 0.8, 0.0, False),  # nothing that is shown speaks for it
        ((0.02, -0.1, 0.1), -0.8, 0.0, True),
        ((-0.02, -0.1, 0.1), 0.8, 0.0, True),
        ((-0.02, -0.1, 0.1), -0.8, 0.1, False),  # pass@1 has surely risen
        ((-0.02, -0.1, 0.1), -3.0, 0.1, True),  # but the update surely opposes it
        (None, 0.8, 0.0, False),
        (None, None, 0.0, True),
    ],
)
def test_what_leads_waits_while_its_own_figures_contradict_it(pace, z, change, fires):
    detector, shown = ConflictDetector(1e-3, 0.01), None if z is None else cosine(z)
    for _ in range(3):
        look = replace(opposing(quiet(change)), pace=None if pace is None else Pace(*pace))
        fired = detector.update(look, shown)[0]
    assert ("alignment" in detector.active) == fires
    for _ in range(3):
        fired += detector.update(opposing(quiet()))[0]
    assert fired == (() if fires else ("alignment",))  # once nothing speaks against it


def test_each_group_escalates_on_its_own():
    detector = ConflictDetector(1e-3, 0.01, groups=2)
    groups = {"a": quiet(-0.2), "b": quiet()}
    assert detector.update(level_only(quiet(), groups))[0] == ("level of a",)
    assert detector.update(level_only(quiet(), {**groups, "b": quiet(-0.2)}))[0] == ("level of b",)
    assert detector.update(level_only(quiet(-0.2), groups))[0] == ("level",)


def test_a_kind_of_alarm_survives_what_carries_a_probe_elsewhere():
    kind = AlarmKind("level", "odd", leading=True)
    for other in (pickle.loads(pickle.dumps(kind)), copy.deepcopy(kind)):
        assert other == kind == "level of odd"
        assert (other.detector, other.group, other.leading) == ("level", "odd", True)
    assert json.loads(json.dumps([kind])) == ["level of odd"]
    read = AlarmKind.read("level of odd of all", {})
    assert (read.detector, read.group) == ("level", "odd of all")


def cosine(z):
    return Cosine(np.sign(z) * 0.5, -1.0, 1.0, z, sized=True)


@pytest.mark.parametrize(
    ("opposed_z", "shown_z", "cause"),
    [
        (-2.0, -3.0, Cause.OPPOSED),
        (None, 3.0, Cause.FALLING),
        (-2.0, 3.0, Cause.FALLING),  # text and figure never contradict each other
        (-2.0, 0.5, Cause.UNKNOWN),
        (2.0, -0.5, Cause.UNKNOWN),
        (-2.0, -0.5, Cause.OPPOSED),
        (2.0, 0.5, Cause.FALLING),
        (-0.5, 0.5, Cause.UNKNOWN),
        (None, None, Cause.UNKNOWN),
        (None, -1.0, Cause.UNKNOWN),
    ],
)
def test_the_cause_is_what_the_inner_products_say(opposed_z, shown_z, cause):
    assert find_cause(opposed_z, None if shown_z is None else cosine(shown_z)) is cause


def test_a_known_conflict_stays_one_while_the_remedy_takes_its_evidence_away():
    detector = ConflictDetector(1e-3, 0.01)
    for _ in range(3):
        detector.update(opposing(quiet()), cosine(-3.0))
    assert detector.cause is Cause.OPPOSED
    detector.update(level_only(quiet(-0.05)), cosine(2.5))
    assert detector.cause is Cause.OPPOSED
    for _ in range(20):
        _, cleared = detector.update(opposing(quiet(), z=0.0), cosine(0.0))
        if cleared:
            break
    assert (cleared, detector.cause) == (True, None)


def test_a_loss_beside_an_update_that_helps_is_no_conflict_until_it_turns_out_to_be_one():
    detector = ConflictDetector(1e-3, 0.01)
    detector.update(level_only(quiet(-0.05)), cosine(4.0))
    assert detector.cause is Cause.FALLING
    detector.update(opposing(quiet(-0.05)), cosine(-2.5))
    assert detector.cause is Cause.OPPOSED
    other = ConflictDetector(1e-3, 0.01)
    other.load_state_dict(detector.state_dict())
    assert other.cause is Cause.OPPOSED


def test_of_a_group_alone_the_cause_is_not_known():
    detector = ConflictDetector(1e-3, 0.01, groups=2)
    detector.update(level_only(quiet(), {"a": quiet(-0.2)}), cosine(4.0))
    assert detector.cause is Cause.UNKNOWN


def test_what_leads_is_no_news_after_the_loss():
    detector = ConflictDetector(1e-3, 0.01)
    assert detector.update(level_only(quiet(-0.05)))[0] == ("level",)
    fired = [detector.update(opposing(quiet(-0.05)))[0] for _ in range(5)]
    assert fired == [()] * 5
    assert detector.active == {"alignment", "level"}
