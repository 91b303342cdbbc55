"""A reading of a policy in words and as plain values."""

import json

import numpy as np
import pytest
from nulls import CONTROLS

from passk_guard.reporting.policy_record import policy_record, policy_sentence
from passk_guard.statistics.policy_reading import Verdict, read_policy


def reading(m=128, right=None, labels=None, k=4, seed=0, chance=0.04):
    """Of prompts that are solved in all ways, or each by ``right`` rollouts of 8."""
    rng = np.random.default_rng(seed)
    gradients, _ = CONTROLS["opposed"](rng, m)
    if right is None:
        correct = rng.integers(0, 9, m)
        gradients = gradients * ((correct > 0) & (correct < 8))[:, None]
    else:
        correct, gradients = np.full(m, right), gradients + 2.0
    return read_policy(correct, 8, k, gramian=gradients @ gradients.T, labels=labels, chance=chance)


def test_a_record_is_plain_json_and_has_what_the_reading_has():
    found = reading(labels=["a", "b"] * 64)
    record = json.loads(json.dumps(policy_record(found), allow_nan=False))
    assert record["verdict"] == str(found.verdict)
    assert [one["value"] for one in record["pass_at"]] == [one.value for one in found.pass_at]
    assert record["curve"][3]["z"] == found.alignment.z
    assert set(record["groups"]) == {"a", "b"}
    assert record["conflict"]["steps"] == []
    few = policy_record(reading(m=8))
    assert few["test"]["threshold"] is None


@pytest.mark.parametrize(
    ("found", "verdict", "words"),
    [
        ({"right": 0}, Verdict.NO_SIGNAL, "nothing was right in 1024 rollouts"),
        ({"right": 7}, Verdict.NIL, "seldom enough to raise it"),
        ({"right": 2}, Verdict.RAISES, "would not lower pass@1"),
        ({"m": 8}, Verdict.UNSURE, "fewer than 32 prompts are never sure"),
    ],
)
def test_each_verdict_has_its_sentence(found, verdict, words):
    what = reading(**found)
    assert what.verdict is verdict
    assert words in policy_sentence(what)


def test_a_gradient_of_a_few_prompts_among_few_is_not_called_nil():
    """Of 32 prompts 3 are a tenth: there is something to gain, and too little to tell its sign."""
    correct = np.array([2, 2, 2] + [7] * 29)
    gradients = np.random.default_rng(0).normal(size=(32, 40)) + 1.0
    few = read_policy(correct, 8, 4, gramian=gradients @ gradients.T)
    assert few.verdict is Verdict.UNSURE
    assert few.needed >= 43
    assert "rests on 3 of 32 prompts, too few to tell the sign" in policy_sentence(few)
    gradients = np.random.default_rng(0).normal(size=(640, 40)) + 1.0
    correct = np.array([2, 2, 2] + [7] * 637)
    assert read_policy(correct, 8, 4, gramian=gradients @ gradients.T).verdict is Verdict.NIL


def test_what_would_settle_it_is_said():
    rng = np.random.default_rng(2)
    gradients = rng.normal(size=(200, 40)) + 0.06
    what = read_policy(np.full(200, 4), np.full(200, 8), 4, gramian=gradients @ gradients.T)
    if what.verdict is Verdict.UNSURE:
        assert what.needed is None or what.needed > 200
    for seed in range(20):
        gradients = np.random.default_rng(seed).normal(size=(200, 40)) + 0.04
        what = read_policy(
            np.full(200, 4), np.full(200, 8), 4, gramian=gradients @ gradients.T, chance=0.001
        )
        if what.verdict is Verdict.UNSURE and what.needed:
            assert f"About {what.needed} prompts in all" in policy_sentence(what)
            break
    else:
        pytest.fail("none was unsure")
