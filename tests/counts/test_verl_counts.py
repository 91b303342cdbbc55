"""Validation dumps of verl, as its own function wrote them."""

from collections import Counter

import pytest
from harness import VERL, lines_of, table, write_lines

from passk_guard.counts import read_counts

OLDER, NEWER = VERL / "20.jsonl", VERL / "40.jsonl"


def test_counts_are_those_of_the_lines():
    counts = read_counts(OLDER)
    right, every = Counter(), Counter()
    for line in lines_of(OLDER):  # 3 3 = is asked twice, for a sum and for a product
        every[line["input"], line["gts"]] += 1
        right[line["input"], line["gts"]] += line["output"] == line["gts"]
    assert [counts.texts[id] for id in counts.ids] == [text for text, _ in every]
    assert list(table(counts).values()) == [(right[asked], 6) for asked in every]
    assert set(every.values()) == {6}
    assert 0 < counts.correct.sum() < counts.n.sum()
    assert (counts.name, counts.verifier) == ("20.jsonl", "verl: acc")
    assert counts.settings == {"step": 20}


def test_ids_are_the_same_in_every_run():
    """verl's own are drawn anew each time, and the older trainer does not even write them."""
    assert table(read_counts(OLDER)) == table(read_counts(NEWER))


def test_outputs_of_one_rollout_count_once(tmp_path):
    counts = read_counts(NEWER)
    assert counts.n.tolist() == [6] * 16
    assert counts.remarks == ("40.jsonl: 112 outputs belong to 96 rollouts, which are counted.",)
    nameless = [{**line, "uid": None} for line in lines_of(NEWER)]
    assert len(read_counts(write_lines(tmp_path / "a.jsonl", nameless))) > 16  # the control


def test_the_score_and_the_threshold(tmp_path):
    """The summary of a validation goes by ``acc``; a score may have other parts."""
    lines = lines_of(OLDER)
    for line in lines:
        line["score"] = 0.4 if line["acc"] else 0.1  # less a penalty for its length
    path = write_lines(tmp_path / "a.jsonl", lines)
    assert table(read_counts(path)) == table(read_counts(OLDER))
    by_score = read_counts(path, metric="score")
    assert by_score.correct.sum() == 0
    assert "96 of 96 scores are graded" in by_score.remarks[0]
    assert table(read_counts(path, metric="score", threshold=0.3)) == table(read_counts(OLDER))
    for line in lines:
        del line["acc"]
    assert read_counts(write_lines(path, lines)).verifier == "verl: score"
    with pytest.raises(
        ValueError, match=r"a\.jsonl, line 1, has no 'acc' \(metric\)\. It has \['gts"
    ):
        read_counts(path, metric="acc")
    # -1 and 1 are wrong and right
    assert read_counts(OLDER, metric="score").remarks == ()
    assert table(read_counts(OLDER, metric="score")) == table(read_counts(OLDER))


def test_no_verdict(tmp_path):
    lines = lines_of(OLDER)
    lines[0]["acc"] = None
    lines[1]["acc"] = float("nan")
    counts = read_counts(write_lines(tmp_path / "a.jsonl", lines))
    assert counts.n.tolist() == [4] + [6] * 15
    assert "2 of 96 rollouts have no verdict" in counts.remarks[0]
    lines[2]["acc"] = "right"
    with pytest.raises(ValueError, match=r"line 3, has the score 'right'. A score is a number, or"):
        read_counts(write_lines(tmp_path / "a.jsonl", lines))


def test_numbers_as_text(tmp_path):
    """``json.dumps(default=str)``, as the older trainer calls it, makes text of NumPy's own."""
    lines = lines_of(OLDER)
    for i, line in enumerate(lines):
        line["acc"] = str(line["acc"]) if i % 2 else str(float(line["acc"]))
    counts = read_counts(write_lines(tmp_path / "a.jsonl", lines))
    assert table(counts) == table(read_counts(OLDER))
    assert counts.remarks == ()


def test_one_text_with_two_answers_is_two_prompts(tmp_path):
    line = {"input": "2 2 =", "output": "0 4", "score": 1.0, "step": 1}
    lines = [{**line, "gts": gts} for gts in ("0 4", ["0 4"], {"sum": 4}, None, "0 4")]
    counts = read_counts(write_lines(tmp_path / "a.jsonl", lines))
    assert sorted(counts.n) == [1, 1, 1, 2]


def test_a_folder(tmp_path):
    with pytest.raises(
        ValueError, match=r"dumps of several steps: 20\.jsonl, 40\.jsonl\. Name one"
    ):
        read_counts(VERL)
    write_lines(tmp_path / "7.jsonl", lines_of(OLDER))
    assert table(read_counts(tmp_path)) == table(read_counts(OLDER))


def test_damaged_dumps(tmp_path):
    path = tmp_path / "a.jsonl"
    text = OLDER.read_text()
    path.write_text(text[:-30])
    counts = read_counts(path)
    assert counts.n.sum() == 95
    assert counts.remarks == ("a.jsonl: its last line, 96, is cut off and left out.",)
    path.write_text(text + NEWER.read_text())
    with pytest.raises(ValueError, match=r"line 97, is of step 40, the first line of 20\. "):
        read_counts(path)
    lines = lines_of(OLDER)
    del lines[1]["input"]
    with pytest.raises(
        ValueError, match=r"a\.jsonl, line 2, is no rollout of verl: input, output or"
    ):
        read_counts(write_lines(path, lines))
