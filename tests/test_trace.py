"""What a guard sees, says and does in a whole run is what it was at the last release."""

import json

import pytest
from places import DATA
from traced import trace

GOLDEN = json.loads((DATA / "traces.json").read_text())


def close(one, other):
    """Equal, but for rounding of floats."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    if isinstance(one, float):
        return one == pytest.approx(other, rel=1e-5, abs=1e-7)
    return one == other


@pytest.mark.parametrize(("action", "floor"), [("mix", 0.3), ("adjust_k", 0.35)])
def test_the_golden_trace(action, floor):
    now = json.loads(json.dumps(trace(action, floor)))
    before = GOLDEN[action]
    assert [sorted(entry) for entry in now] == [sorted(entry) for entry in before]
    for entry, other in zip(now, before, strict=True):
        assert close(entry, other), (entry, other)


def test_the_trace_tells_a_change():
    """A tolerance of another size, and the run is another one."""
    now = json.loads(json.dumps(trace("adjust_k", 0.36)))
    assert not close(now, GOLDEN["adjust_k"])
