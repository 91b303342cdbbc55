"""Samples of lm-evaluation-harness, as it wrote them."""

import json
import shutil

import pytest
from harness import LM_PRODUCT, LM_RESULTS, LM_SUM, lines_of, table, write_lines

from passk_guard import pass_at_k
from passk_guard.counts import read_counts

HERE = LM_SUM.parent


def test_counts_are_those_of_the_responses():
    counts = read_counts(LM_SUM)
    for line in lines_of(LM_SUM):
        [responses] = line["resps"]
        right = sum(one == line["target"] for one in responses)
        id = f"digits_sum/{line['doc_hash'][:16]}"
        assert table(counts)[id] == (right, 6)
        assert counts.texts[id] == line["doc"]["prompt"]
    assert len(counts) == 10
    assert 0 < counts.correct.sum() < counts.n.sum()
    assert set(counts.groups) == {"digits_sum"}
    assert counts.settings == {"model": "model", "temperature": 1.0}


def test_pass_at_k_is_what_the_harness_wrote():
    counts = read_counts(LM_SUM)
    lines = {f"digits_sum/{line['doc_hash'][:16]}": line for line in lines_of(LM_SUM)}
    for k in (1, 2, 4):
        ours = pass_at_k(counts.correct, counts.n, k)
        theirs = [lines[id][f"pass@{k}"] for id in counts.ids]
        assert ours == pytest.approx(theirs, abs=1e-12)
        [mean] = (
            value
            for name, value in json.loads(LM_RESULTS.read_text())["results"]["digits_sum"].items()
            if name == f"pass@{k},all_six"
        )
        assert ours.mean() == pytest.approx(mean, abs=1e-12)
    plug_in = 1 - (1 - counts.correct / counts.n) ** 4
    assert plug_in != pytest.approx(theirs, abs=1e-3)


def test_pass_at_k_does_not_tell_how_many(tmp_path):
    with pytest.raises(ValueError, match=r"pass@2 is at least one of 2 responses, .*Add pass@1"):
        read_counts(LM_SUM, metric="pass@2")
    lines = lines_of(LM_SUM)
    for line in lines:
        line["metrics"] = ["pass@2", "pass@4"]
    with pytest.raises(ValueError, match=r"a.jsonl does not tell how many responses were right"):
        read_counts(write_lines(tmp_path / "a.jsonl", lines))


def test_filters_that_differ_have_to_be_chosen(tmp_path):
    path, lines = LM_PRODUCT, lines_of(LM_PRODUCT)
    with pytest.raises(ValueError, match=r"several filters, which differ: strict, first_digits\. "):
        read_counts(path)
    assert read_counts(path, filter="strict").correct.tolist() == [0] * 6
    counts = read_counts(path, filter="first_digits")
    right = {line["doc_id"] for line in lines if line["exact_match"]}
    assert counts.correct.tolist() == [int(i in right) for i in range(6)]
    assert 0 < len(right) < 6
    [remark] = counts.remarks
    assert "of 2 responses to a question the filter 'first_digits' leaves one" in remark
    with pytest.raises(ValueError, match=r"has no filter='x'. Its filters: strict, first_digits"):
        read_counts(path, filter="x")
    for line in lines:
        line["exact_match"] = 0.0
    path = write_lines(tmp_path / "a.jsonl", lines)
    assert read_counts(path).correct.tolist() == [0] * 6  # any will do


def test_metrics_that_differ_have_to_be_chosen(tmp_path):
    lines = [line | {"metrics": ["acc", "acc_norm", "f1"], "acc": 1.0} for line in lines_of(LM_SUM)]
    lines = [line | {"acc_norm": 0.0, "f1": [1, 0], "filtered_resps": ["x"]} for line in lines]
    path = write_lines(tmp_path / "a.jsonl", lines)
    with pytest.raises(ValueError, match=r"several metrics, which differ: acc, acc_norm\. Say"):
        read_counts(path)
    assert read_counts(path, metric="acc").correct.tolist() == [1] * 10
    assert read_counts(path, metric="acc_norm").correct.tolist() == [0] * 10
    with pytest.raises(ValueError, match="f1 is not one number for each question"):
        read_counts(path, metric="f1")


def test_a_number_for_each_response(tmp_path):
    lines = lines_of(LM_SUM)
    for line in lines:
        verdicts = [float(one == line["target"]) for one in line["resps"][0]]
        line |= {"metrics": ["right"], "right": verdicts}
    assert table(read_counts(write_lines(tmp_path / "a.jsonl", lines))) == {
        id.split("/")[1]: count for id, count in table(read_counts(LM_SUM)).items()
    }
    lines[3]["right"] = [1.0, float("nan"), None, 0.0, 0.4, 0.6]
    counts = read_counts(write_lines(tmp_path / "a.jsonl", lines))
    assert (counts.correct[3], counts.n[3]) == (2, 4)
    assert "2 of 60 rollouts have no verdict" in counts.remarks[0]
    assert "2 of 60 scores are graded" in counts.remarks[1]
    assert read_counts(tmp_path / "a.jsonl", threshold=0.3).correct[3] == 3
    lines[0]["right"] = 0.5  # a mean could be anything
    for line in lines:
        line["right"] = 0.5
    with pytest.raises(ValueError, match="right is one number for 6 responses"):
        read_counts(write_lines(tmp_path / "a.jsonl", lines))


def test_pass_at_1_that_is_no_share(tmp_path):
    lines = lines_of(LM_SUM)
    for value in (0.4, 1.5, -0.5, float("inf")):
        lines[4]["pass@1"] = value
        with pytest.raises(ValueError, match=rf"line 5, has pass@1={value} of 6 responses, which"):
            read_counts(write_lines(tmp_path / "a.jsonl", lines))
    lines[4]["pass@1"] = float("nan")
    assert len(read_counts(write_lines(tmp_path / "a.jsonl", lines))) == 9


def test_scored_continuations_are_one_verdict(tmp_path):
    """Two numbers in ``filtered_resps`` are a log-likelihood and whether it was greedy."""
    lines = [
        line
        | {
            "arguments": {"gen_args_0": {"arg_0": "a", "arg_1": " b"}},
            "resps": [[["-1.5", "True"]]],
            "filtered_resps": [["-1.5", "True"]],
            "metrics": ["perplexity", "acc"],
            "acc": 1,
            "perplexity": -1.5,
        }
        for line in lines_of(LM_SUM)
    ]
    counts = read_counts(write_lines(tmp_path / "a.jsonl", lines), metric="acc")
    assert (counts.correct.tolist(), counts.n.tolist()) == ([1] * 10, [1] * 10)


def test_a_folder_of_tasks():
    counts = read_counts(HERE, filter="strict")  # which is one task's alone
    assert len(counts) == 16
    assert set(counts.groups) == {"digits_sum", "digits_product"}
    alone = table(read_counts(LM_SUM)) | table(read_counts(LM_PRODUCT, filter="strict"))
    assert table(counts) == alone
    both = read_counts(HERE, filter="strict", metric="exact_match")
    assert table(both) == table(counts)
    with pytest.raises(ValueError, match=r"has no metric='nowhere'"):
        read_counts(HERE, filter="strict", metric="nowhere")
    with pytest.raises(ValueError, match=r"pass@2 is at least one of 2 responses"):
        read_counts(HERE, filter="strict", metric="pass@2")
    with pytest.raises(ValueError, match=r"has no filter='nowhere'"):
        read_counts(HERE, filter="nowhere")


def test_a_folder_of_runs(tmp_path):
    """Of several runs the last is read; of several models one has to be named."""
    old = tmp_path / "model" / LM_SUM.name.replace("2026-", "2025-")
    old.parent.mkdir()
    lines = lines_of(LM_SUM)
    write_lines(old, lines[:3])
    shutil.copy(LM_SUM, old.parent)
    shutil.copy(LM_RESULTS, old.parent)
    counts = read_counts(tmp_path)
    assert table(counts) == table(read_counts(LM_SUM))
    assert "of 2 runs of digits_sum, the last is read" in counts.remarks[0]
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(LM_SUM, other)
    with pytest.raises(ValueError, match=r"samples of several models: model, other. Name one"):
        read_counts(tmp_path)


def test_questions_pair_by_content(tmp_path):
    """In another order, with other numbers, they are the same questions."""
    lines = lines_of(LM_SUM)[::-1]
    for number, line in enumerate(lines):
        line["doc_id"] = number
    path = write_lines(tmp_path / LM_SUM.name, lines)
    assert table(read_counts(path)) == table(read_counts(LM_SUM))
    lines[0]["doc_hash"] = lines[1]["doc_hash"]
    counts = read_counts(write_lines(path, lines))
    assert sorted(counts.n) == [6] * 8 + [12]
    assert "questions that are the same as another: 1;" in counts.remarks[0]


def test_samples_of_before_0_4_7_are_too_old_and_said_to_be(tmp_path):
    """0.4.3 to 0.4.6 wrote the same but for these two keys: read in their sources."""
    lines = [
        {k: v for k, v in one.items() if k not in ("filter", "metrics")} for one in lines_of(LM_SUM)
    ]
    path = write_lines(tmp_path / LM_SUM.name, lines)
    with pytest.raises(ValueError, match=r"line 1, is of lm-evaluation-harness before 0\.4\.7"):
        read_counts(path)


def test_a_run_that_only_predicts(tmp_path):
    lines = [line | {"metrics": ["bypass"], "bypass": 999} for line in lines_of(LM_SUM)]
    with pytest.raises(ValueError, match="bypass is of a run that only predicts"):
        read_counts(write_lines(tmp_path / "a.jsonl", lines))
