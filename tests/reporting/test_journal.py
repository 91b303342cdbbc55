"""The run's JSONL: what is kept, what is dropped, what goes wrong."""

import json

import pytest

from passk_guard import PassKGuardWarning
from passk_guard.reporting.journal import Journal


def written(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_resumed_run_goes_on_and_a_new_one_keeps_the_old_file(tmp_path):
    first = Journal(tmp_path / "run")  # made with the first line
    first.begin(0)
    for step in (0, 2, 4):
        first.write({"step": step})
    with first.path.open("a") as file:
        file.write('{"step": 6, "tra')  # killed here
    again = Journal(tmp_path / "run")
    again.begin(2)
    again.write({"step": 4, "again": True})
    assert written(again.path) == [{"step": 0}, {"step": 2}, {"step": 4, "again": True}]
    new = Journal(tmp_path / "run")
    new.begin(0)
    new.write({"step": 0})
    assert written(new.path) == [{"step": 0}]
    assert len(written(tmp_path / "run" / "passk_guard.jsonl.old")) == 3


def test_no_run_takes_the_place_of_another_and_one_that_starts_again_keeps_its_lines(tmp_path):
    for run in "abc":
        for _ in range(2):
            journal = Journal(tmp_path)
            journal.begin(0, run)
            journal.write({"step": 0, "look": "start"})
            journal.write({"step": 4})
    for run, name in zip("abc", (".old", ".old2", ""), strict=True):
        lines = written(tmp_path / f"passk_guard.jsonl{name}")
        assert [(line["run"], line["step"]) for line in lines] == [(run, 0), (run, 4)] * 2


def test_every_line_is_strict_json_of_its_own(tmp_path):
    journal = Journal(tmp_path)
    record = {"step": 1, "nan": float("nan"), "parts": [(float("inf"), "a\nb\u2028c\ud800")]}
    journal.write(record)
    (line,) = journal.path.read_text().split("\n")[:-1]
    assert "NaN" not in line
    assert json.loads(line) == {"step": 1, "nan": None, "parts": [[None, "a\nb\u2028c\ud800"]]}


def write_two(journal):
    journal.begin(0)
    for step in (0, 2):
        journal.write({"step": step})


def test_what_cannot_be_written_is_said_once(tmp_path):
    (tmp_path / "file").write_text("in the way")
    journal = Journal(tmp_path / "file")
    with pytest.warns(PassKGuardWarning, match="could not be written") as caught:
        write_two(journal)
    assert len(caught) == 1
    for nowhere in (None, "s3://bucket/run"):
        write_two(Journal(nowhere))
