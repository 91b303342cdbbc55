"""Details of lighteval, as it wrote them."""

import shutil
import sys

import pytest
from extras import needs

needs("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq
from harness import HARNESS, LIGHT_OFTEN, LIGHT_ONCE, table

from passk_guard import pass_at_k
from passk_guard.counts import read_counts

ROWS = pq.read_table(LIGHT_OFTEN).to_pylist()


def written(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_counts_are_those_of_the_responses():
    counts = read_counts(LIGHT_OFTEN)
    assert [counts.texts[id] for id in counts.ids] == [row["doc"]["query"] for row in ROWS]
    assert list(table(counts).values()) == [
        (row["model_response"]["text"].count(row["doc"]["choices"][0]), 8) for row in ROWS
    ]
    assert len(counts) == 16  # though 3 3 = is asked twice, for a sum and for a product
    assert 0 < counts.correct.sum() < counts.n.sum()
    assert set(counts.groups) == {"digits_often|0"}
    assert counts.verifier == "lighteval: pass@k"


def test_pass_at_k_is_what_the_harness_wrote():
    counts = read_counts(LIGHT_OFTEN)
    for k in (1, 2, 4):
        theirs = [row["metric"][f"pass@k:k={k}&n=8"] for row in ROWS]  # in the same order
        assert pass_at_k(counts.correct, counts.n, k) == pytest.approx(theirs, abs=1e-12)
    plug_in = 1 - (1 - counts.correct / counts.n) ** 4
    assert plug_in != pytest.approx(theirs, abs=1e-3)


def test_metrics_that_agree_need_no_choice():
    by_mean = read_counts(LIGHT_OFTEN, metric="avg@n:n=8")
    assert table(by_mean) == table(read_counts(LIGHT_OFTEN, metric="pass@k:k=1&n=8"))
    assert table(by_mean) == table(read_counts(LIGHT_OFTEN))


@pytest.mark.parametrize(
    ("metric", "why"),
    [
        ("pass@k:k=4&n=8", "at least one of k responses, not how many"),
        ("em", "one number for 8 responses"),
    ],
)
def test_metrics_that_do_not_tell(tmp_path, metric, why):
    with pytest.raises(ValueError, match=f"{metric} is {why}.* Add pass@k with k=1"):
        read_counts(LIGHT_OFTEN, metric=metric)
    rows = [{**row, "metric": {metric: row["metric"][metric]}} for row in ROWS]
    with pytest.raises(ValueError, match=r"a\.parquet does not tell how many responses were right"):
        read_counts(written(tmp_path / "a.parquet", rows))


def test_metrics_that_differ_have_to_be_chosen(tmp_path):
    rows = [
        {**row, "metric": {"pass@k:k=1&n=8": 0.25, "avg@n:n=4": 0.25, "avg@n:n=1": 1.0}}
        for row in ROWS
    ]
    path = written(tmp_path / "a.parquet", rows)
    with pytest.raises(
        ValueError, match=r"several metrics, which differ: pass@k:k=1&n=8, avg@n:n=4"
    ):
        read_counts(path)
    assert set(table(read_counts(path, metric="avg@n:n=4")).values()) == {(1, 4)}
    assert set(table(read_counts(path, metric="avg@n:n=1")).values()) == {(1, 1)}


def test_graded_scores(tmp_path):
    rows = [{**row, "metric": {"avg@n:n=8": 0.3}} for row in ROWS]
    with pytest.raises(ValueError, match=r"avg@n:n=8 is 0.3 of 8 responses, no whole number"):
        read_counts(written(tmp_path / "a.parquet", rows))
    rows = pq.read_table(LIGHT_ONCE).to_pylist()
    for i, row in enumerate(rows):
        row["metric"] = {"f1": [0.4, 0.6, None, float("nan")][i % 4]}
    counts = read_counts(written(tmp_path / "a.parquet", rows))
    assert (counts.correct.tolist(), counts.n.tolist()) == ([0, 1] * 4, [1] * 8)
    assert "8 of 16 rollouts have no verdict" in counts.remarks[0]
    assert "8 of 16 scores are graded" in counts.remarks[1]
    assert read_counts(tmp_path / "a.parquet", threshold=0.3).correct.sum() == 8


def test_fewer_responses_than_the_metric_is_of(tmp_path):
    """lighteval warns, and divides by the number that there should have been."""
    rows = [dict(row) for row in ROWS]
    rows[3]["model_response"] = {"text": rows[3]["model_response"]["text"][:5]}
    for row in rows:
        row["model_response"] = {"text": row["model_response"]["text"]}
    with pytest.raises(ValueError, match=r"is of 8 responses, of which 5 are there"):
        read_counts(written(tmp_path / "a.parquet", rows))


def test_a_folder_of_tasks(tmp_path):
    counts = read_counts(HARNESS / "lighteval")
    assert set(counts.groups) == {"digits_often|0", "digits_once|0"}
    assert table(counts) == table(read_counts(LIGHT_OFTEN)) | table(read_counts(LIGHT_ONCE))
    one = read_counts(HARNESS / "lighteval", metric="avg@n:n=8")  # the other has em alone
    assert table(one) == table(counts)
    with pytest.raises(ValueError, match="em is one number for 8 responses"):
        read_counts(HARNESS / "lighteval", metric="em")
    with pytest.raises(ValueError, match="has no metric='f1'"):
        read_counts(HARNESS / "lighteval", metric="f1")
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        shutil.copy(LIGHT_ONCE, tmp_path / folder)
    with pytest.raises(ValueError, match=r"has details of several runs: first, second. Name one"):
        read_counts(tmp_path)


def test_questions_pair_by_content(tmp_path):
    rows = [{**row, "doc": {**row["doc"], "id": str(i)}} for i, row in enumerate(ROWS[::-1])]
    path = written(tmp_path / "a.parquet", rows)
    assert table(read_counts(path)) == table(read_counts(LIGHT_OFTEN))
    rows[0]["doc"] = rows[1]["doc"]
    counts = read_counts(written(path, rows))
    assert sorted(counts.n) == [8] * 14 + [16]
    assert "questions that are the same as another: 1;" in counts.remarks[0]


def test_damaged_and_foreign_files(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(LIGHT_ONCE.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"a\.parquet is no whole parquet file: .* Copy it again"):
        read_counts(path)
    with pytest.raises(
        ValueError, match=r"no file of details .*: doc, metric, model_response missi"
    ):
        read_counts(written(path, [{"x": 1}]))
    doc = {"query": "1", "choices": ["1"], "gold_index": 0, "task_name": "a"}
    for metric in (None, "{}"):
        row = {"doc": doc, "metric": metric, "model_response": {"text": ["1"]}}
        with pytest.raises(ValueError, match=r"a\.parquet, row 1, is not what lighteval writes"):
            read_counts(written(path, [row]))
    text = {"doc": "{}", "metric": {"em": 1}, "model_response": {"text": ["1"]}}
    with pytest.raises(ValueError, match=r"a\.parquet, row 1, is not what lighteval writes"):
        read_counts(written(path, [text]))


def test_without_pyarrow(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs pyarrow: pip install pyarrow"):
        read_counts(LIGHT_ONCE)
