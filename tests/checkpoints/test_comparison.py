"""Comparing counts: what is paired, what is decided, what is said, and how long it takes."""

import json
import math
import time

import numpy as np
import pytest

from passk_guard.checkpoints.comparison import (
    _needed,
    compare_counts,
    decision_code,
    decision_sentence,
)
from passk_guard.counts.counts import Counts
from passk_guard.statistics.paired_counts import PassChange, paired_changes


def counts(name, correct, n, ids=None, **more):
    correct = np.asarray(correct)
    ids = tuple(f"p{i}" for i in range(len(correct))) if ids is None else tuple(ids)
    return Counts(name, ids, correct, np.broadcast_to(n, correct.shape).copy(), **more)


def sampled(name, p, n, seed, **more):
    rng = np.random.default_rng(seed)
    return counts(name, rng.binomial(n, p), n, **more)


def change(low, high, visible=0.02):
    return PassChange(1, 100, 9, 0.5, 0.4, 0.6, 0.5, 0.4, 0.6, (low + high) / 2, low, high, visible)


# What is decided --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "tolerance", "code", "says"),
    [
        (-0.004, 0.006, 0.01, 0, "pass@1 did not fall by 1 point or more"),
        (-0.008, -0.002, 0.01, 0, "pass@1 fell, but by less than the 1 point"),
        (0.002, 0.006, 0.01, 0, "pass@1 rose"),
        (0.002, 0.006, 0.0, 0, "pass@1 rose"),
        (-0.05, -0.02, 0.01, 1, "pass@1 fell by more than 1 point"),
        (-0.05, -0.02, 0.015, 1, "pass@1 fell by more than 1.5 points"),
        (-0.05, -0.02, 0.0, 1, "pass@1 fell: "),
        (-0.05, 0.02, 0.01, 2, "Not enough data to tell whether pass@1 fell by 1 point"),
        (-0.05, -0.002, 0.01, 2, "pass@1 fell, but not enough data to tell whether by 1 point"),
        (-0.01, 0.02, 0.01, 2, "Had nothing changed, 400 such prompts would tell."),
        (-0.05, 0.02, 0.0, 2, "Not enough data to tell whether pass@1 fell: "),
    ],
)
def test_the_interval_against_the_tolerance(low, high, tolerance, code, says):
    one = change(low, high)
    assert decision_code(low, high, tolerance) == code
    sentence = decision_sentence(code, one, "a", "b", tolerance, _needed(one, tolerance))
    assert says in sentence
    assert f"95 %: {100 * low:+.1f} to {100 * high:+.1f}" in sentence


def test_what_cannot_be_seen_has_no_number_of_prompts():
    assert _needed(change(-0.9, 0.9, math.inf), 0.01) is None
    assert _needed(change(-0.1, 0.1), 0.0) is None


def test_a_fall_a_rise_and_too_little_data():
    p = np.random.default_rng(0).beta(0.5, 0.5, 2000)
    a = sampled("a.jsonl", p, 16, 1)
    assert compare_counts(a, sampled("b.jsonl", p * 0.9, 16, 2)).decision == 1
    assert compare_counts(a, sampled("b.jsonl", p, 16, 2)).decision == 0
    found = compare_counts(a, sampled("b.jsonl", p, 16, 2), tolerance=0.001)
    assert found.decision == 2
    assert f"{found.needed:,} such prompts would tell" in found.sentence
    assert found.needed > 2000


def test_on_the_edge_each_verdict_is_wrong_in_one_run_of_forty():
    """pass@1 fell by the tolerance exactly: neither more nor less is true."""
    p, codes = np.random.default_rng(0).uniform(0.3, 0.7, 200), []
    for seed in range(120):
        a, b = sampled("a", p, 4, 2 * seed), sampled("b", p - 0.02, 4, 2 * seed + 1)
        codes.append(compare_counts(a, b, ks=[1], tolerance=0.02).decision)
    most = 120 * 0.025 + 3 * math.sqrt(120 * 0.025)
    assert codes.count(0) <= most
    assert codes.count(1) <= most
    # The negative control: the estimate against the tolerance is wrong every time.
    assert codes.count(2) >= 120 - 2 * most


# What is paired ---------------------------------------------------------------------------------


def test_prompts_are_paired_by_id_in_whatever_order():
    rng = np.random.default_rng(3)
    a = counts("a", rng.integers(0, 9, 60), 8, groups=["x", "y"] * 30)
    b = counts("b", rng.integers(0, 9, 60), 8)
    order = rng.permutation(60)
    shuffled = counts("b", b.correct[order], 8, ids=[b.ids[i] for i in order])
    one, other = compare_counts(a, b), compare_counts(a, shuffled)
    assert one.record() == other.record()
    wrong = compare_counts(a, counts("b", b.correct[order], 8))  # the same order is not the point
    assert wrong.pass_at_1.low != pytest.approx(one.pass_at_1.low)
    assert "their order in the files does not matter" in " ".join(one.remarks)


def test_prompts_in_one_file_only_are_left_out_and_counted():
    a = counts("a", [4, 4, 0, 1], 4, ids=["u", "v", "w", "only a"])
    b = counts("b", [1, 4, 4, 0, 0], 4, ids=["v", "more", "u", "w", "too"])
    found = compare_counts(a, b)
    assert (found.prompts, found.only_in_a, found.only_in_b) == (3, 1, 2)
    assert found.pass_at_1.change == pytest.approx((0 - 0.75 + 0) / 3)
    assert "Left out: 1 prompt in a only and 2 prompts in b only." in found.remarks


def test_groups_are_compared_each_by_itself():
    rng = np.random.default_rng(4)
    n = np.where(np.arange(90) < 30, 4, 8)
    groups = ["easy"] * 30 + ["hard"] * 60
    a = Counts("a", tuple(map(str, range(90))), rng.binomial(n, 0.5), n, groups=tuple(groups))
    b = Counts("b", a.ids, rng.binomial(n, 0.3), n)
    found = compare_counts(a, b)
    assert [(group.name, group.prompts) for group in found.groups] == [("easy", 30), ("hard", 60)]
    for group, at in zip(found.groups, (slice(30), slice(30, 90)), strict=True):
        ks = [change.k for change in group.changes]
        assert ks == ([1, 2, 4] if group.name == "easy" else [1, 2, 4, 8])
        alone = paired_changes(a.correct[at], n[at], b.correct[at], n[at], ks)
        assert group.changes == alone
    assert compare_counts(b, a).groups[0].changes[0].change == pytest.approx(
        -found.groups[0].changes[0].change
    )


def test_lost_and_won_prompts_are_named_with_their_counts():
    a = counts("a", [16] * 20 + [0] * 80, 16, texts={"p0": "1 + 1 ="}, groups=["g"] * 100)
    b = counts("b", [0] * 10 + [16] * 10 + [0] * 75 + [15] * 5, 16)
    found = compare_counts(a, b)
    assert {prompt.id for prompt in found.lost} == {f"p{i}" for i in range(10)}
    assert {prompt.id for prompt in found.won} == {f"p{i}" for i in range(95, 100)}
    lost = next(prompt for prompt in found.lost if prompt.id == "p0")
    assert (lost.before, lost.n_before, lost.after, lost.n_after) == (16, 16, 0, 16)
    assert (lost.group, lost.text) == ("g", "1 + 1 =")
    assert (found.seemed_lost, found.seemed_won, found.nameable) == (10, 5, 100)
    assert compare_counts(a, b, margin=0.97).lost == ()


def test_each_k_and_its_prompts():
    a = counts("a", [1, 2, 3, 0], [1, 4, 4, 8])
    b = counts("b", [0, 2, 1, 8], [2, 4, 8, 8])
    found = compare_counts(a, b)
    assert [change.k for change in found.changes] == [1, 2, 3, 4]
    assert [change.prompts for change in found.changes] == [4, 3, 3, 3]
    asked = compare_counts(a, b, ks=[8, 2, 2])
    assert [(change.k, change.prompts) for change in asked.changes] == [(1, 4), (2, 3), (8, 1)]


# What is said -----------------------------------------------------------------------------------


def test_what_to_bear_in_mind_is_said():
    a = counts(
        "a", [1, 2, 0], 4, verifier="math", settings={"temperature": 1.0, "top_p": 1.0},
        texts={"p0": "q", "p1": "r"}, groups=["x", "x", "y"], remarks=("a was mended.",),
    )  # fmt: skip
    b = counts(
        "b", [1, 2, 0], [4, 4, 2], verifier="f1", settings={"temperature": 0.6, "top_p": 1.0},
        texts={"p0": "another", "p1": "r"}, groups=["x", "z", "y"],
    )  # fmt: skip
    remarks = compare_counts(a, b).remarks
    for said in (
        "a was mended.",
        "The verifiers differ: math in a, f1 in b.",
        "temperature is 1.0 in a and 0.6 in b",
        "Rollouts per prompt: 4 in a, 2 to 4 in b.",
        "1 prompt of 3 with the same id have different texts",
        "1 prompt changed groups",
        "3 prompts are few: a kind of which there are less than 100 %",
        "Only 2 of 3 prompts have rollouts enough",
    ):
        assert sum(said in remark for remark in remarks) == 1, said
    assert not any("top_p" in remark for remark in remarks)
    plain = compare_counts(
        sampled("a", np.full(200, 0.5), 8, 0), sampled("b", np.full(200, 0.5), 8, 1)
    )
    assert plain.remarks == ("Prompts are paired by id; their order in the files does not matter.",)
    same = sampled("a", np.full(200, 0.5), 8, 0)
    assert "are these the same rollouts?" in compare_counts(same, same).remarks[-1]


def test_the_record_is_json_and_complete():
    a = counts("a", [1, 1, 0], 1, groups=["x", "y", "y"])
    found = compare_counts(a, counts("b", [0, 1, 0], 1))
    record = json.loads(json.dumps(found.record(), allow_nan=False))
    assert record["changes"][0]["visible"] is None  # no change could be seen on three prompts
    assert found.pass_at_1.visible == math.inf
    assert record["decision"] == 2
    assert record["groups"][1]["changes"][0]["prompts"] == 2
    assert set(record) == set(vars(found))


def broken(**changes):
    values = {"name": "a", "ids": ("u", "v"), "correct": np.array([1, 1]), "n": np.array([2, 2])}
    return Counts(**{**values, **changes})


@pytest.mark.parametrize(
    ("a", "settings", "says"),
    [
        (broken(ids=("x", "y")), {}, r"no prompt is in both a \(ids 'x', 'y'\) and b \(ids 'u'"),
        (broken(ids=("u", "u")), {}, "prompt 'u' is there twice"),
        (broken(correct=np.array([1, 3])), {}, "1 prompts have no whole count"),
        (broken(n=np.array([2, 0]), correct=np.array([0, 0])), {}, "n at least"),
        (broken(correct=np.array([1])), {}, "correct of shape"),
        (broken(groups=("x",)), {}, "1 groups"),
        (broken(), {"tolerance": 1.0}, "tolerance must lie"),
        (broken(), {"margin": 1.5}, "margin must lie"),
        (broken(), {"false_discovery": 2}, "false_discovery must lie"),
        (broken(), {"ks": [0]}, "ks must hold"),
        (broken(), {"ks": [4]}, "no prompt has k=4 rollouts in both"),
    ],
)
def test_what_it_refuses(a, settings, says):
    with pytest.raises(ValueError, match=says):
        compare_counts(a, broken(name="b"), **settings)


# How long it takes ------------------------------------------------------------------------------


def test_five_thousand_prompts_take_no_time():
    rng = np.random.default_rng(5)
    p = rng.beta(0.5, 0.5, 5000)
    n, later = rng.integers(1, 65, size=(2, 5000))
    groups = tuple(f"g{i % 20}" for i in range(5000))
    a = counts("a", rng.binomial(n, p), n, groups=groups)
    b = counts("b", rng.binomial(later, p * (rng.random(5000) > 0.1)), later)
    start = time.process_time()
    x = rng.random((600, 600))
    for _ in range(100):
        x = np.sort(x + 1e-3, axis=1)
    yardstick = time.process_time() - start
    start = time.process_time()
    found = compare_counts(a, b)
    took = time.process_time() - start
    assert found.decision == 1
    assert len(found.lost) > 100
    assert took < 40 * yardstick, (took, yardstick)  # the slow ways take hundreds
