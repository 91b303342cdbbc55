"""The benchmark of reading, in small: every format gives the counts that were written."""

import json

import pytest
from extras import needs
from places import TESTS

needs("pyarrow")


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(TESTS / "benchmarks"))
    import reading

    return reading


def test_in_small(benchmark, monkeypatch, tmp_path):
    out = tmp_path / "reading.json"
    monkeypatch.setattr("sys.argv", ["", "--prompts=20", "--rollouts=4", f"--out={out}"])
    benchmark.main()
    found = json.loads(out.read_text())
    assert found.keys() == json.loads(benchmark.RESULTS.read_text()).keys()


def test_it_sees_a_wrong_count(benchmark, monkeypatch, tmp_path):
    write, parse = benchmark.WRITERS["verl"]

    def wrong(path, right):
        right = right.copy()
        right[1, 0] ^= True
        write(path, right)

    monkeypatch.setitem(benchmark.WRITERS, "verl", (wrong, parse))
    with pytest.raises(AssertionError, match="the counts are not those that were written"):
        benchmark.measure("verl", tmp_path, 8, 4)


def test_the_figures_are_those_of_streams(benchmark):
    """Linear in the prompts, and next to nothing in memory where there is a line per rollout."""
    found = json.loads(benchmark.RESULTS.read_text())
    assert (found["prompts"], found["rollouts"]) == (5000, 64)
    for name in benchmark.WRITERS:
        assert 2 < found[name]["growth"] < 8, name  # 16 if it were quadratic
        assert found[name]["beside_parsing"] < 4, name
    assert found["counts"]["memory"] < 2
    assert found["verl"]["memory"] < 15  # the names of its rollouts
    assert found["lm_eval"]["memory"] < 10  # of lines of 70 kB
