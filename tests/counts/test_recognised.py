"""Which format a file is of, what is said of one that is of none, and how to add one."""

import json

import pytest
from harness import HARNESS, LM_RESULTS, LM_SUM, VERL, write_lines

from passk_guard.counts import (
    FORMATS,
    Format,
    PromptCount,
    Source,
    format_of,
    gather,
    read_counts,
    register_format,
)


@pytest.fixture
def formats():
    """What a test registers is gone after it."""
    before = dict(FORMATS._entries)
    yield
    FORMATS._entries = before


def test_content_tells_not_the_name(tmp_path):
    path = tmp_path / "42.txt"
    path.write_bytes((VERL / "20.jsonl").read_bytes())
    assert read_counts(path).verifier == "verl: acc"
    path.write_bytes(LM_SUM.read_bytes())
    assert read_counts(path).verifier == "lm-evaluation-harness: pass@1, filter all_six"
    path.write_text('{"prompt_id": "a", "correct": 1, "n": 2}\n')
    assert read_counts(path).verifier is None
    path.write_text('\ufeff\n\n{"prompt_id": "a", "correct": 1, "n": 2}\n')
    assert read_counts(path).ids == ("a",)


def test_each_is_told_from_all_others(tmp_path):
    """One format at most takes a file for its own, whatever the order in which they are asked."""
    plain = write_lines(tmp_path / "a.jsonl", [{"prompt_id": "a", "correct": 1, "n": 2}])
    probe = write_lines(tmp_path / "b.jsonl", [{"passk_guard": "probe", "settings": {}}])
    files = {plain: "counts", probe: "probe"}
    for name in ("lm_eval", "inspect_ai", "lighteval", "verl"):
        files |= dict.fromkeys((HARNESS / name, *(HARNESS / name).iterdir()), name)
    del files[LM_RESULTS]
    for path, name in files.items():
        source = Source(path)
        known = [format for format, one in FORMATS.items() if one.recognises(source)]
        assert known == [name], path
        assert format_of(path) == name
    assert len(files) == 14
    assert format_of(LM_RESULTS) is None


def test_a_format_can_be_forced(tmp_path):
    with pytest.raises(ValueError, match=r"20.jsonl, line 1, has prompt_id=None"):
        read_counts(VERL / "20.jsonl", format="counts")
    with pytest.raises(ValueError, match=r"line 1, is no sample of lm-evaluation-harness"):
        read_counts(VERL / "20.jsonl", format="lm_eval")
    with pytest.raises(ValueError, match=r"line 1, is no rollout of verl"):
        read_counts(LM_SUM, format="verl")
    with pytest.raises(ValueError, match=r"20.jsonl is not JSON: Extra data"):
        read_counts(VERL / "20.jsonl", format="inspect_ai")
    with pytest.raises(IsADirectoryError, match=r"is a folder. Name one file in it"):
        read_counts(VERL, format="counts")
    with pytest.raises(ValueError, match=r"format='csv' is not known. Choose one of: counts, prob"):
        read_counts(VERL / "20.jsonl", format="csv")


def test_what_is_of_no_format(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing.jsonl does not exist"):
        read_counts(tmp_path / "nothing.jsonl")
    path = tmp_path / "a.jsonl"
    path.write_text("")
    with pytest.raises(ValueError, match=r"a.jsonl is empty. Give a file of counts"):
        read_counts(path)
    path.write_text("\n \n")
    with pytest.raises(ValueError, match=r"a.jsonl is empty. Give a file of counts"):
        read_counts(path)
    write_lines(path, [{"question": "a", "answer": "b"}])
    with pytest.raises(
        ValueError, match=r"first line with the keys answer, question, and is of no"
    ):
        read_counts(path)
    path.write_text("# notes\n")
    with pytest.raises(ValueError, match=r"begins with '# notes\\n', and is of no format that is"):
        read_counts(path)
    with pytest.raises(ValueError, match=r"validation dumps of verl\. Turn it into the first one"):
        read_counts(path)
    with pytest.raises(ValueError, match=r"looks like the results of a harness: means, without"):
        read_counts(LM_RESULTS)


def test_folders(tmp_path):
    with pytest.raises(ValueError, match=r"is empty, and is of no format"):
        read_counts(tmp_path)
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(ValueError, match=r"holds model.safetensors, and is of no format"):
        read_counts(tmp_path)
    for name in ("lm_eval", "inspect_ai", "lighteval"):
        with pytest.raises(ValueError, match=r"has no file|has no log"):
            read_counts(tmp_path, format=name)
    with pytest.raises(ValueError, match=r"holds no dump <step>.jsonl"):
        read_counts(tmp_path, format="verl")


def test_the_journal_of_a_guarded_run(tmp_path):
    path = tmp_path / "passk_guard.jsonl"
    write_lines(path, [{"look": "start", "step": 0}, {"look": "probe", "step": 0}])
    with pytest.raises(ValueError, match=r"is the journal of a guarded run: .* passk-guard probe"):
        read_counts(path)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), True, "0.5"])
def test_bad_thresholds(threshold):
    with pytest.raises(ValueError, match="threshold must be a finite number"):
        read_counts(VERL / "20.jsonl", threshold=threshold)


def test_a_choice_that_means_nothing_is_refused(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"prompt_id": "a", "correct": 1, "n": 2}])
    with pytest.raises(ValueError, match=r"metric='acc' means nothing for .* format='counts'"):
        read_counts(path, metric="acc")
    with pytest.raises(ValueError, match=r"filter='strict' means nothing for .* format='verl'"):
        read_counts(VERL / "20.jsonl", filter="strict")
    with pytest.raises(ValueError, match=r"threshold=0.5 means nothing"):
        read_counts(path, threshold=0.5)


@pytest.mark.usefixtures("formats")
def test_a_format_of_ones_own(tmp_path):
    """The door: one function that knows it, and one that reads it."""

    def read(source, choices):
        found = json.loads(source.path.read_text())["solved"]
        return gather(source.name, [PromptCount(id, *count) for id, count in found.items()])

    own = Format("our own", lambda source: "solved" in source.first, read)
    register_format("ours", own)
    path = tmp_path / "a.json"
    path.write_text('{"solved": {"a": [1, 4]}}')
    assert read_counts(path).correct.tolist() == [1]
    with pytest.raises(ValueError, match="is registered already"):
        register_format("verl", own)


def test_the_files_stay_small():
    for path in HARNESS.rglob("*"):
        assert path.is_dir() or path.stat().st_size < 62_000, path
