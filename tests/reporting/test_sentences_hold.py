"""A sentence never argues against its own figures, whatever a run finds."""

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passk_guard import PassKGuardConfig
from passk_guard.detection.alarm import Alarm
from passk_guard.detection.cause import Cause
from passk_guard.detection.detector import LookEvidence
from passk_guard.detection.episodes import ConflictDetector
from passk_guard.detection.named_states import NamedState
from passk_guard.look import Rescore
from passk_guard.remedies.remedy import RemedyChange
from passk_guard.reporting.alarm_sentences import alarm_message
from passk_guard.reporting.policy_record import policy_sentence
from passk_guard.reporting.read_run import Run
from passk_guard.reporting.record import look_record
from passk_guard.reporting.scalars import scalars
from passk_guard.reporting.sentences import (
    blind_message,
    few_probes_message,
    plan_message,
    remedy_message,
    short_run_message,
    sketch_message,
    state_message,
)
from passk_guard.reporting.summary import summary
from passk_guard.reporting.table import history_table
from passk_guard.runtime.schedule import FirstLook, Forecast
from passk_guard.statistics.cosine import Parts, profile_cosine
from passk_guard.statistics.kept_batches import Foretold
from passk_guard.statistics.levels import Reading
from passk_guard.statistics.pace import PaceKeeper
from passk_guard.statistics.policy_reading import Verdict, has_signal, read_policy
from passk_guard.statistics.track import Fix, Increment, PairedTrack

chance, sd = st.floats(0, 1), st.floats(0, 0.5)
value = st.floats(-2, 2)  # increments are no probabilities
z = st.floats(-9, 9) | st.sampled_from([0.0, -0.0, -0.04, 1.96, -1.96, 1e6])
quick = settings(max_examples=150, deadline=None)


def checked(text):
    """No figure that is none, and none that pass@1 cannot have."""
    assert not re.search(r"\b(nan|inf|None)\b|[-−]0(\.0+)?(?![\d.]|\.\d)", text), text
    for points in re.findall(r"([-+]?[\d.,]+) points", text):
        assert abs(float(points.replace(",", ""))) <= 100, text
    return text


def figures(pattern, text):
    return [float(part) for part in re.search(pattern, text).groups()]


variance = sd.map(lambda s: s**2)
increments = st.none() | st.builds(Increment, value, variance, variance, variance)
fixes = st.none() | st.builds(Fix, st.floats(-1, 1), variance)
parts = st.tuples(z, z, z, st.floats(1e-3, 3)).map(
    lambda p: Parts(
        np.array(p[:3]), np.full(3, p[3] * -1.0 if p[3] > 2 else p[3]), np.eye(3) * p[3]
    )
)


@st.composite
def runs(draw):
    """The looks of a run, from what detectors and filters make of anything."""
    floor = draw(st.none() | chance)
    detector = ConflictDetector(1e-3, 0.01, groups=2, relative=floor is None)
    tracks = {label: PairedTrack(draw(chance), draw(variance)) for label in (None, "a", "b")}
    pace, looks = PaceKeeper(), []
    for step in range(draw(st.integers(1, 6))):
        told = [
            track.update(draw(increments), draw(fixes), 1) if step else None
            for track in tracks.values()
        ]
        drift, found = told[0], {label: track.now() for label, track in tracks.items()}
        track = found.pop(None)
        now = pace.update(drift, 1, track.pass_at_1)
        cosine = draw(st.none() | parts.map(profile_cosine))
        u = None if cosine is None else SimpleNamespace(inner=draw(z))
        evidence = LookEvidence(u, track, found, Foretold(0.0, 1.0), drift, 1, None, now)
        fired, cleared = detector.update(evidence, cosine)
        alarm = None
        if fired:
            of = {kind.group for kind in fired}
            groups = {label: found[label] for label in of if label is not None}
            alarm = Alarm(step, fired, track, groups, detector.cause, cosine, now, (3, 5))
        looks.append(
            (
                Rescore(
                    step=step,
                    reading=Reading(track, found, drift, None, pace=now),
                    alarm=alarm,
                    conflicts=tuple(sorted(detector.active)),
                    cause=detector.cause,
                    cleared=cleared,
                    seconds=1.0,
                ),
                cosine,
            )
        )
    return looks


def claims_hold(text, *, z, pace, change, rises):
    """What is said, against the figures that stand beside it."""
    text = text.lower()
    if "works against" in text:
        assert z is None or z < -1.96, text
    if "seems to work against" in text:
        assert -1.96 <= z < 0, text
    if "pass@1 falls" in text:
        assert pace < 0, text
    if "pass@1 has fallen" in text:
        assert change < 0, text
    if "pass@1 is at risk" in text:
        assert change < 0 or None in (z, pace) or min(z, pace) < 0, text
        assert change < 0 or not rises or (z is not None and z < -1.96), text
    if "not known yet" in text:
        assert z is None or abs(z) <= 1.96, text


def told(z):
    return None if z is None else z.z


@quick
@given(runs(), st.sampled_from(["warn", "mix"]))
def test_an_alarm_and_the_verdict_on_a_run(looks, action):
    config = PassKGuardConfig(action=action, objective="pkpo" if action == "mix" else None)
    for look, cosine in looks:
        if look.alarm is None:
            continue
        text, track, pace = checked(alarm_message(look.alarm, config)), look.track, look.pace
        claims_hold(
            text.split(" (")[0],
            z=told(cosine),
            pace=None if pace is None else pace.change,
            change=track.change,
            rises=(pace is not None and pace.low > 0) or track.change > 1.96 * track.change_se,
        )
        levels = r"%s (\S+) -> (\S+) on the reference's prompts, change in the pool (\S+) ± (\S+) "
        for name, one in {
            "pass@1": track,
            **{f"pass@1 of {k!r}": t for k, t in look.alarm.groups.items()},
        }.items():
            seen = figures(levels % re.escape(name), text)
            wanted = (one.reference, one.pass_at_1, one.change, 1.96 * one.change_se)
            assert seen == pytest.approx(wanted, abs=6e-4), text
            assert all(0 <= level <= 1 for level in seen[:2]), text
        if pace is not None:
            seen = figures(r"At present (\S+) points per 10 steps \[(\S+), (\S+)\]", text)
            assert seen == pytest.approx([100 * v for v in vars(pace).values()], abs=6e-3), text
        if cosine is not None:
            assert figures(r"\(z (\S+)\)", text) == pytest.approx([cosine.z], rel=1e-6, abs=0.06)
    checked(history_table([look for look, _ in looks]))
    records = []
    for look, cosine in looks:
        record = json.loads(json.dumps(look_record(look, scalars(look)), allow_nan=False))
        records.append({**record, "look": "probe", "z": told(cosine), "k": 8, "pass1_weight": 0.0})
    run = Run(
        Path("runs/a/b.jsonl"),
        {"config": {"k": 8, "pass1_tolerance": 0.01}},
        (),
        records[-1]["step"],
        tuple(records),
        (),
        None,
        0,
    )
    found, last = summary(run), records[-1]
    sentence = checked(found["sentence"])
    claims_hold(
        sentence.split(", since")[0],
        z=last["z"],
        pace=last.get("pace"),
        change=last["change"],
        rises=False,  # an alarm may be older than that
    )
    if found["verdict"] == "falling":
        assert last["change_high"] < 0
    shown = figures(r"by (\S+) points since the start \(95 %: (\S+) to (\S+)\)", sentence)
    wanted = [100 * last[name] for name in ("change", "change_low", "change_high")]
    assert shown == pytest.approx(wanted, abs=0.06)


configs = st.builds(
    PassKGuardConfig,
    k=st.integers(1, 64),
    reference_prompts=st.integers(4, 6) | st.just(64),
    rollouts_per_look=st.integers(1, 8) | st.just(1024),
    every=st.none() | st.integers(1, 20),
    max_overhead=st.none() | st.floats(1e-6, 0.999),
    false_alarms=st.floats(1e-9, 0.4),
)
steps = st.floats(1e-9, 1e9)


@quick
@given(configs, st.integers(1, 30), st.floats(0, 1e6), steps, st.floats(0, 3), st.integers(1, 40))
def test_what_a_run_will_see(config, probes, times, cost, visible, total):
    few = checked(few_probes_message(probes, config, times))
    look = FirstLook(1, 2, cost * times, cost, over=True)
    short = checked(short_run_message(look, total, config))
    plan = checked(
        plan_message(Forecast(cost, cost, cost, probes, probes + 2, cost), visible, config)
    )
    for text in (few, short):
        if every := re.search(r"Lower every=(\d+)", text):
            assert int(every[1]) > 1
        least = {"reference_prompts": 4, "rollouts_per_look": config.reference_prompts}
        if lower := re.search(r"lower (\w+)=(\d+)", text):
            assert int(lower[2]) > least[lower[1]]
    every, looks = figures(r"Give every=(\d+) for (\d+)", short)
    assert looks == total // every + 1
    assert ("sure of: about" in plan) == (visible < 1)
    assert "chance 0 %" not in plan


@quick
@given(
    st.builds(
        RemedyChange,
        st.sampled_from(["mix", "adjust_k"]),
        st.just(True),
        st.floats(1e-3, 1),
        st.floats(1, 7.99),
    )
)
def test_a_remedy_and_what_it_sets(change):
    text = checked(remedy_message(3, change))
    [seen] = figures(r"(?:λ = |to )([\d.e-]+)\.$", text)
    assert seen == pytest.approx(
        change.pass1_weight if change.how == "mix" else change.k, abs=0.0051
    )
    assert seen > 0


@quick
@given(st.integers(1, 2**50), st.floats(0.1, 1))
def test_what_does_not_fit_is_more_than_the_limit(needed, share):
    text = checked(sketch_message(needed, needed * share))
    if share < 0.99:
        size, limit = figures(
            r"take (\S+) GiB, over memory_limit=(\S+) GiB",
            text.replace(",", "").replace("GiB over", "GiB, over"),
        )
        assert size >= limit


score = st.sampled_from([0.0, -0.0, 0.5, 0.49999999, 1.0, -1e9, 1e-12]) | st.floats(-10, 10)


@quick
@given(st.integers(4, 9), st.integers(2, 9), score, score, score, st.data())
def test_a_state_without_signal(m, n, low, high, threshold, data):
    low, high = min(low, high), max(low, high)
    counts = data.draw(st.lists(st.sampled_from([0, n]), min_size=m, max_size=m))
    counts[0] = data.draw(st.integers(0, n))
    mixed = sum(0 < c < n for c in counts)
    probe = SimpleNamespace(
        truncation=None,
        step=3,
        prompts=m,
        rollouts=m * n,
        correct=counts,
        scored=[n] * m,
        no_signal=1 - mixed / m,
        rewards=(low, high),
        pass_at_1=sum(counts) / (m * n),
        verifier=None,
        inference=None,
        diagnostics=SimpleNamespace(top1_mass=0.5),
        solved_in_k=SimpleNamespace(gap_at_start=0.1, gap=0.04),
    )
    text = checked(blind_message(probe, 3, threshold))
    seen = re.search(r"from (\S+) to (\S+), right from success_threshold=(\S+) on", text).groups()
    _, high_seen, bound = (float(v.replace(",", "")) for v in seen)
    assert ("nothing was right" in text) == (high < threshold) == (high_seen < bound)
    if "each prompt was" in text:
        assert mixed == 0
    text = checked(state_message(NamedState.VANISHING_SIGNAL, probe))
    assert ("none has" in text) == (mixed == 0)
    text = checked(state_message(NamedState.EXPLORATION_COLLAPSE, probe))
    assert "was 0.100 at the start and is 0.040" in text


@quick
@given(
    st.integers(4, 40), st.integers(0, 10**6), st.floats(-1, 1), st.sampled_from([0.0, 1.0, 0.3])
)
def test_a_policy_read_by_itself(m, seed, pull, p):
    rng = np.random.default_rng(seed)
    c = rng.binomial(8, p, m)
    g = rng.normal(size=(m, 3)) + pull
    found = read_policy(c, 8, 4, gramian=g @ g.T if has_signal(c, np.full(m, 8)) else None)
    text = checked(policy_sentence(found))
    if found.test is None:
        return
    if found.verdict is Verdict.UNSURE and "sure from" in text:
        zed, bound = figures(r"\(z (\S+) on .*sure from (\S+) on\)", text)
        assert abs(zed) <= bound
        assert ("would lower it" in text) == (zed < 0)
        assert ("would raise it" in text) == (zed > 0)
    if found.verdict in (Verdict.LOWERS, Verdict.RAISES):
        assert math.copysign(1, found.test.z) == (1 if found.verdict is Verdict.RAISES else -1)


def test_both_alarms_of_the_issue_are_told_by_their_figures():
    """An update that helps, and pass@1 that has risen: nothing is said to fall."""
    for cause in Cause:
        track = PairedTrack(0.114, 0.01)
        track.update(Increment(0.18, 0.01), None, 1)
        now = track.now()
        alarm = Alarm(2, ("alignment",), now, {}, cause, None, None, ())
        assert "falls" not in alarm_message(alarm, PassKGuardConfig())
