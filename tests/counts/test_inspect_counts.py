"""Logs of inspect_ai, as it wrote them."""

import json
import math
import sys

import pytest
from harness import INSPECT, table

from passk_guard import pass_at_k
from passk_guard.counts import read_counts

JSON, EVAL = INSPECT / "digits_asked.json", INSPECT / "digits_asked.eval"
METRICS = ("match", "graded", "digits/tens", "digits/ones")
LOG = json.loads(JSON.read_text())


def summaries():
    """What inspect_ai keeps of each sample beside the transcript."""
    kept = ("id", "epoch", "input", "target", "scores")
    return [{key: sample[key] for key in kept} for sample in LOG["samples"]]


@pytest.mark.needs("inspect_ai")
@pytest.mark.parametrize("metric", METRICS)
def test_eval_and_json_are_the_same_log(metric):
    packed, plain = read_counts(EVAL, metric=metric), read_counts(JSON, metric=metric)
    assert table(packed) == table(plain)
    assert packed.verifier == plain.verifier == f"inspect_ai: {metric}"
    assert packed.settings == plain.settings
    assert plain.settings == {"model": "hf/model", "temperature": 2.0, "max_tokens": 2}
    assert packed.texts == plain.texts
    assert packed.texts["0 4"] == "0 4 ="


@pytest.mark.parametrize("metric", METRICS)
def test_pass_at_k_is_what_the_harness_wrote(metric):
    """Its reducers ``pass_at_1`` to ``pass_at_3``: NaN where fewer than k epochs have a verdict."""
    counts = read_counts(JSON, metric=metric)
    scorer, _, key = metric.partition("/")
    compared = 0
    for reduction in LOG["reductions"]:
        if reduction["scorer"] != scorer:
            continue
        k = int(reduction["reducer"].removeprefix("pass_at_"))
        assert len(reduction["samples"]) == len(counts) == 8
        for sample in reduction["samples"]:
            theirs = sample["value"][key] if key else sample["value"]
            c, n = table(counts)[str(sample["sample_id"])]
            if n < k:
                assert math.isnan(theirs)
            else:
                assert pass_at_k(c, n, k) == pytest.approx(theirs, abs=1e-12)
                compared += 1
    assert compared >= 23


def test_the_means_are_what_the_harness_wrote():
    compared = 0
    for score in LOG["results"]["scores"]:
        if score["name"] == "match":
            k = int(score["reducer"].removeprefix("pass_at_"))
            counts = read_counts(JSON, metric="match")
            ours = pass_at_k(counts.correct, counts.n, k).mean()
            assert ours == pytest.approx(score["metrics"]["accuracy"]["value"], abs=1e-12)
            compared += 1
    assert compared == 3


def test_partial_credit():
    """It is wrong by default, as for the harness' pass_at; another threshold disagrees with it."""
    assert table(read_counts(JSON, metric="graded")) == table(read_counts(JSON, metric="match"))
    counts = read_counts(JSON, metric="graded", threshold=0.5)
    assert counts.correct.sum() > read_counts(JSON, metric="match").correct.sum()
    [remark] = counts.remarks
    assert remark == (
        "digits_asked.json: 12 of 32 scores are graded, neither 0 nor 1; right is what reaches 0.5 "
        "(threshold)."
    )


def test_without_a_verdict():
    counts = read_counts(JSON, metric="digits/ones")
    assert sorted(set(counts.n)) == [2, 3, 4]
    assert counts.remarks == (
        "digits_asked.json: 5 of 32 rollouts have no verdict and are not counted.",
    )


def test_scorers_that_differ_have_to_be_chosen():
    with pytest.raises(
        ValueError, match=r"several scorers, .*: match, graded, digits/tens, digits/"
    ):
        read_counts(JSON)
    with pytest.raises(ValueError, match=r"has no metric='digits'\. Its scorers: match, graded, "):
        read_counts(JSON, metric="digits")


def test_words_and_numbers(tmp_path):
    for value, expected in {
        "C": (1, 1),
        "I": (0, 1),
        "N": (0, 1),
        "Yes": (1, 1),
        "1.0": (1, 1),
        True: (1, 1),
        0.9: (0, 1),
    }.items():
        samples = [{"id": 3, "epoch": 1, "input": "a", "scores": {"s": {"value": value}}}]
        path = tmp_path / "a.json"
        path.write_text(json.dumps({**LOG, "samples": samples}))
        assert table(read_counts(path)) == {"3": expected}
    samples[0]["scores"]["s"]["value"] = "A"  # an answer, not a verdict
    path.write_text(json.dumps({**LOG, "samples": samples}))
    with pytest.raises(
        ValueError, match=r"sample '3', epoch 1, has the score 'A'. A score is a num"
    ):
        read_counts(path)
    samples[0]["scores"]["t"] = {"value": ["C", "I"]}  # the other is not asked for
    path.write_text(json.dumps({**LOG, "samples": samples}))
    assert table(read_counts(path, metric="t/0")) == {"3": (1, 1)}
    with pytest.raises(ValueError, match="several scorers, which differ: t/0, t/1"):
        read_counts(path)


def test_a_folder_of_logs(tmp_path):
    one, other = ({**LOG, "eval": {**LOG["eval"], "task": task}} for task in "ab")
    (tmp_path / "1.json").write_text(json.dumps(one))
    alone = read_counts(tmp_path, metric="match")
    assert table(alone) == table(read_counts(JSON, metric="match"))
    assert alone.groups is None
    (tmp_path / "2.json").write_text(json.dumps(other))
    both = read_counts(tmp_path, metric="match")
    assert set(both.groups) == {"a", "b"}
    assert table(both) == {
        f"{task}/{id}": count for task in "ab" for id, count in table(alone).items()
    }
    other["samples"] = [{**s, "scores": {"x": {"value": "I"}}} for s in summaries()]
    (tmp_path / "2.json").write_text(json.dumps(other))
    both = read_counts(tmp_path, metric="match")  # which the other has not
    assert both.verifier == "inspect_ai: match; x"
    assert both.correct[8:].tolist() == [0] * 8
    with pytest.raises(ValueError, match="has no metric='y'"):
        read_counts(tmp_path, metric="y")
    (tmp_path / "3.json").write_text(json.dumps(other))
    with pytest.raises(
        ValueError, match=r"several logs of the task b: 2\.json, 3\.json\. Name one"
    ):
        read_counts(tmp_path, metric="match")


def test_damaged_logs(tmp_path):
    header = {**LOG, "samples": None}
    (tmp_path / "c.json").write_text(json.dumps(header))
    with pytest.raises(ValueError, match=r"c\.json has no samples: it is the header of a log"):
        read_counts(tmp_path / "c.json")
    text = JSON.read_text()
    (tmp_path / "c.json").write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match=r"c\.json is not JSON: .* Copy the log again"):
        read_counts(tmp_path / "c.json")


@pytest.mark.needs("inspect_ai")
@pytest.mark.parametrize("kept", [slice(0, -100), slice(0, 100)])
def test_a_packed_log_that_is_cut_off(tmp_path, kept):
    path = tmp_path / "b.eval"
    path.write_bytes(EVAL.read_bytes()[kept])
    with pytest.raises(ValueError, match=r"b\.eval cannot be read by inspect_ai: .* Copy it again"):
        read_counts(path)


def test_a_packed_log_without_inspect_ai(monkeypatch):
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs inspect_ai: pip install inspect_ai\. Wh"):
        read_counts(EVAL)


def test_an_empty_run(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**LOG, "samples": []}))
    with pytest.raises(ValueError, match=r"has no scores\. Score it with `inspect score`"):
        read_counts(path)
    no_scores = [{**sample, "scores": None} for sample in summaries()]
    path.write_text(json.dumps({**LOG, "samples": no_scores}))
    with pytest.raises(ValueError, match=r"has no scores\. Score it"):
        read_counts(path)
    failed = {**LOG, "samples": no_scores, "status": "error", "error": {"message": "no network"}}
    path.write_text(json.dumps(failed))
    with pytest.raises(
        ValueError, match=r"has no scores\. Its run has the status 'error': 'no net"
    ):
        read_counts(path)
