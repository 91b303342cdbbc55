"""Files in which something is not as it should be: an answer, or a sentence that names the file."""

import json
import random

import pytest
from harness import INSPECT, LM_PRODUCT, LM_SUM, VERL, lines_of, write_lines

from passk_guard.counts import read_counts

ODD = [None, "x", "", -1, 3, 2.5, [], [1], {}, {"a": 1}, True]
ODD += [float("nan"), float("inf"), 10**400, -(10**400)]
PLAIN = [{"prompt_id": i % 2, "correct": 1, "n": 3, "group": str(i % 2)} for i in range(4)]
PROBE = [
    {"passk_guard": "probe", "settings": {"verifier": "x"}},
    {"look": "prompt", "prompt_id": "a", "correct": 1, "n": 3},
]
LINES = {  # what is in a file, and how it is read
    "plain.jsonl": (PLAIN, {"format": "counts"}),
    "probe.jsonl": (PROBE, {"format": "probe"}),
    LM_SUM.name: (lines_of(LM_SUM), {"format": "lm_eval"}),
    LM_PRODUCT.name: (lines_of(LM_PRODUCT), {"format": "lm_eval", "filter": "strict"}),
    "20.jsonl": (lines_of(VERL / "20.jsonl"), {"format": "verl"}),
    "40.jsonl": (lines_of(VERL / "40.jsonl"), {"format": "verl"}),
}
LOG = json.loads((INSPECT / "digits_asked.json").read_text())
LOG = {
    **{key: LOG[key] for key in ("version", "status", "eval", "plan")},
    "samples": [
        {key: sample[key] for key in ("id", "epoch", "input", "scores")}
        for sample in LOG["samples"][:4]
    ],
}


def changed(value, rng):
    """A copy with something replaced or left out, at any depth."""
    value = json.loads(json.dumps(value))
    places = []

    def walk(one):
        for key in one if isinstance(one, dict) else range(len(one)):
            places.append((one, key))
            if isinstance(one[key], (dict, list)):
                walk(one[key])

    walk(value)
    holder, key = rng.choice(places)
    if rng.random() < 0.3:
        del holder[key]
    else:
        holder[key] = rng.choice(ODD)
    return value


def outcome(path, **choices):
    """Whether it was read; it may be refused, in a sentence that names it."""
    refused = None
    try:
        counts = read_counts(path, **choices)
    except ValueError as error:
        refused = error
    if refused is not None:
        assert type(refused) is ValueError  # and no UnicodeDecodeError, for one
        assert path.name in str(refused)
        assert str(refused).endswith(".")
        return False
    assert (counts.correct >= 0).all()
    assert (counts.correct <= counts.n).all()
    assert (counts.n >= 1).all()
    return True


@pytest.mark.parametrize("name", LINES)
def test_lines(tmp_path, name):
    lines, choices = LINES[name]
    rng = random.Random(name)
    read = [outcome(write_lines(tmp_path / name, lines), **choices)]
    for _ in range(60):
        worse = changed(lines if rng.random() < 0.2 else lines[:3], rng)
        read.append(outcome(write_lines(tmp_path / name, worse), **choices))
    assert read[0]
    assert not all(read)


def test_logs(tmp_path):
    rng = random.Random(0)
    read = []
    for _ in range(100):
        log = changed(LOG, rng)
        path = tmp_path / "a.json"
        path.write_text(json.dumps(log))
        read.append(outcome(path, metric="match", format="inspect_ai"))
        outcome(path, format="inspect_ai")
    assert 0 < sum(read) < len(read)


@pytest.mark.needs("pyarrow")
def test_bytes(tmp_path):
    from harness import LIGHT_OFTEN

    rng = random.Random(0)
    files = (INSPECT / "digits_asked.json", LIGHT_OFTEN, LM_SUM)
    read = []
    for _ in range(15):
        for path in files:
            data = bytearray(path.read_bytes())
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            if rng.random() < 0.3:
                data = data[: rng.randrange(1, len(data))]
            (tmp_path / path.name).write_bytes(data)
            choices = {"metric": "match"} if path.parent == INSPECT else {}
            read.append(outcome(tmp_path / path.name, **choices, format=path.parent.name))
    assert 0 < sum(read) < len(read)
