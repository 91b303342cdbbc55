"""Counts as JSONL and CSV, the journal of a probe, and what is wrong with a file."""

import json

import numpy as np
import pytest
from harness import table, write_lines

from passk_guard.counts import PromptCount, gather, read_counts, write_counts


def test_counts_and_single_rollouts_add_up(tmp_path):
    lines = [
        {"prompt_id": "a", "correct": 3, "n": 8, "group": "easy", "prompt": "1 + 1 ="},
        {"prompt_id": 7, "correct": True},
        {"prompt_id": "a", "correct": 0, "n": 2},
        {"prompt_id": "7", "correct": 0},
        {"prompt_id": 7, "correct": 1.0},
        {"prompt_id": 7, "correct": None, "group": float("nan")},
    ]
    counts = read_counts(write_lines(tmp_path / "a.jsonl", lines))
    assert table(counts) == {"a": (3, 10), "7": (2, 3)}
    assert counts.groups == ("easy", "")
    assert counts.texts == {"a": "1 + 1 ="}
    assert (counts.name, counts.remarks) == ("a.jsonl", ())
    assert counts.correct.dtype.kind == counts.n.dtype.kind == "i"


def test_the_order_of_lines_does_not_matter(tmp_path):
    rng = np.random.default_rng(0)
    lines = [{"prompt_id": i % 5, "correct": bool(rng.random() < 0.4)} for i in range(60)]
    there = read_counts(write_lines(tmp_path / "a.jsonl", lines))
    back = read_counts(write_lines(tmp_path / "b.jsonl", lines[::-1]))
    assert table(there) == table(back)
    lines[0]["correct"] ^= True
    assert table(read_counts(write_lines(tmp_path / "c.jsonl", lines))) != table(there)


def test_nan_is_no_verdict(tmp_path):
    lines = [{"prompt_id": "a", "correct": float("nan")}, {"prompt_id": "b", "correct": 1}]
    counts = read_counts(write_lines(tmp_path / "a.jsonl", lines))
    assert table(counts) == {"b": (1, 1)}
    assert counts.remarks == ("a.jsonl: 1 prompts without a verdict are left out.",)
    with pytest.raises(ValueError, match=r"a.jsonl: none of its 1 prompts has a rollout"):
        read_counts(write_lines(tmp_path / "a.jsonl", lines[:1]))


def test_csv(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\ufeffprompt_id, correct, n, group\na, 3, 8, x\n'b, c', true,,\n")
    path.write_text('\ufeffprompt_id, correct, n, group\na, 3, 8, x\n"b, c", true,,\n')
    counts = read_counts(path)
    assert table(counts) == {"a": (3, 8), "b, c": (1, 1)}
    assert counts.groups == ("x", "")
    path.write_text("prompt_id,correct\na,maybe\n")
    with pytest.raises(ValueError, match=r"a.csv, line 2, has correct='maybe', which is no number"):
        read_counts(path)


def test_written_counts_come_back(tmp_path):
    counts = gather(
        "x",
        [
            PromptCount("ä", 2, 5, "g", 'a "text"\nof two lines'),
            PromptCount("b", 0, 64, None),
            PromptCount("c", 1, 1, "h", "half a sign: \ud83d"),
        ],
    )
    write_counts(counts, tmp_path / "out.jsonl")
    back = read_counts(tmp_path / "out.jsonl", name="x")
    assert (back.name, back.ids, back.groups) == (counts.name, counts.ids, counts.groups)
    assert dict(back.texts) == dict(counts.texts)
    assert back.correct.tolist() == counts.correct.tolist()
    assert back.n.tolist() == counts.n.tolist()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt_id": "a", "correct": 9, "n": 8}', r"has correct=9 of n=8\. correct is the"),
        ('{"prompt_id": "a", "correct": -1, "n": 8}', r"has correct=-1 of n=8"),
        ('{"prompt_id": "a", "correct": 0.5, "n": 8}', r"has correct=0\.5 of n=8"),
        ('{"prompt_id": "a", "correct": null, "n": 8}', r"has correct=None of n=8"),
        ('{"prompt_id": "a", "correct": 1, "n": true}', r"has correct=1 of n=True"),
        ('{"prompt_id": "a", "correct": 3}', r"has correct=3 and no n, so it is one rollout"),
        ('{"prompt_id": "a", "correct": "yes"}', r"has correct='yes' and no n"),
        ('{"prompt_id": null, "correct": 1}', r"has prompt_id=None\. It names the prompt"),
        ('{"correct": 1}', r"has prompt_id=None"),
        ('{"prompt_id": "a"}', r"has no 'correct', it has \['prompt_id'\]"),
        ('{"prompt_id": "a", "corr', r"is not JSON: .* Mend or delete that line"),
        ("[1, 2]", r"holds \[1, 2\], which is no JSON object"),
        ("[" * 100_000, r"is not JSON: it is nested too deep"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, said):
    good = '{"prompt_id": "b", "correct": 1, "n": 2}\n'
    path = tmp_path / "a.jsonl"
    path.write_text(good + "\n" + line + "\n" + good)
    with pytest.raises(ValueError, match=r"a\.jsonl, line 3, " + said):
        read_counts(path)


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"prompt_id": "b", "correct": 1}\n{"prompt_id": "\xff", "correct": 1}\n')
    with pytest.raises(ValueError, match=r"line 2, is not JSON: it is not UTF-8"):
        read_counts(path)


def test_a_cut_off_last_line_is_left_out_and_said(tmp_path):
    path = tmp_path / "a.jsonl"
    whole = '{"prompt_id": "a", "correct": 1, "n": 2}\n{"prompt_id": "b", "correct": 1, "n": 2}\n'
    for end in range(42, len(whole) - 2):
        path.write_text(whole[:end])
        counts = read_counts(path)
        assert counts.ids == ("a",)
        assert counts.remarks == ("a.jsonl: its last line, 2, is cut off and left out.",)
    path.write_text(whole[:-1])  # all but the end of the line
    assert read_counts(path).ids == ("a", "b")


def test_one_prompt_in_two_groups(tmp_path):
    lines = [{"prompt_id": "a", "correct": 1, "n": 2, "group": g} for g in ("x", "y")]
    with pytest.raises(ValueError, match=r"prompt 'a' is in the groups 'x' and 'y'"):
        read_counts(write_lines(tmp_path / "a.jsonl", lines))


HEADER = {"passk_guard": "probe", "version": "0.2.0", "settings": {}}
HEADER["settings"] |= {"n": 8, "verifier": "m:verify", "temperature": 0.7, "seed": 3}


def test_the_journal_of_a_probe(tmp_path):
    lines = [
        HEADER,
        {"look": "prompt", "prompt_id": "a", "correct": 3, "n": 8, "group": "x", "seconds": 1.5},
        {"look": "batch", "done": 1},
        {"look": "prompt", "prompt_id": "b", "correct": 0, "n": 8, "group": "y"},
    ]
    path = write_lines(tmp_path / "probe.jsonl", lines)
    counts = read_counts(path)
    assert table(counts) == {"a": (3, 8), "b": (0, 8)}
    assert counts.groups == ("x", "y")
    assert (counts.verifier, counts.settings) == ("m:verify", {"temperature": 0.7})
    path.write_text(path.read_text() + '{"look": "prompt", "prompt_id": "c", "corr')
    killed = read_counts(path)
    assert table(killed) == table(counts)
    assert killed.remarks == ("probe.jsonl: its last line, 5, is cut off and left out.",)


def test_the_journal_of_a_probe_that_has_seen_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"probe.jsonl is empty: it holds no prompt"):
        read_counts(write_lines(tmp_path / "probe.jsonl", [HEADER]))
    plain = write_lines(tmp_path / "a.jsonl", [{"prompt_id": "a", "correct": 1, "n": 2}])
    with pytest.raises(ValueError, match=r"a.jsonl is no journal of `passk-guard probe`"):
        read_counts(plain, format="probe")


def test_files_of_single_rollouts_are_streamed(tmp_path):
    """Memory is that of the prompts, not of the lines: 64 times as many cost next to nothing."""
    import tracemalloc

    def peak(each):
        path = tmp_path / f"{each}.jsonl"
        with path.open("w") as file:
            for i in range(200):
                for _ in range(each):
                    file.write(json.dumps({"prompt_id": i, "correct": 1, "x": "y" * 100}) + "\n")
        tracemalloc.start()
        counts = read_counts(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert counts.n.tolist() == [each] * 200
        return peak

    assert peak(64) < 1.5 * peak(1) + 50_000
