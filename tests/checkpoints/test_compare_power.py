"""What a comparison sees, in the quick form of tests/benchmarks/compare_power.py."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import compare_coverage
import compare_power


@pytest.mark.parametrize("kind", compare_power.KINDS)
def test_populations_fall_by_what_they_say(kind):
    for fall in compare_power.POINTS:
        before, after = compare_power.related(kind, fall)
        assert np.mean(before - after) == pytest.approx(fall, abs=1e-4)
        assert 0 <= after.min() <= after.max() <= 1


def test_no_change_is_seldom_seen_and_a_small_one_where_the_unpaired_test_sees_none():
    none = compare_power.seen("every prompt a little", 0.0, 500, 8, draws=1000)
    assert none["paired"] < 0.05 + 3 * (0.05 / 1000) ** 0.5
    two = compare_power.seen("every prompt a little", 0.02, 500, 8, draws=300)
    assert two["paired"] > 0.6
    assert two["unpaired"] < 0.05
    # Nothing is gained where the two have nothing to do with each other.
    two = compare_power.seen("unrelated", 0.05, 500, 8, draws=300)
    assert two["paired"] == pytest.approx(two["unpaired"], abs=0.06)


def test_most_lost_prompts_are_named_though_thousands_have_not_changed():
    found = compare_power.lost("most at 0 or 1", 16, draws=3)
    assert found["candidates: found"] > 2 * found["all prompts: found"]
    assert found["candidates: wrong"] < 0.05


def test_populations_that_nobody_chose():
    for label, found in compare_coverage.others(4, draws=300).items():
        assert min(found["change"], found["after"]) > 0.93 - 3 * (0.07 / 300) ** 0.5, label
    assert not any(name.startswith("at random") for name in compare_coverage.POPULATIONS)


def test_the_figures_that_are_kept_are_within_bounds():
    kept = compare_coverage.kept()
    assert len(kept) == len(list(compare_coverage.cells(quick=False)))
    for label, found in kept.items():
        name, prompts = label.split(" prompts, ")[0].rsplit(", ", 1)
        assert compare_coverage.faults(name, int(prompts), found) == [], label
    assert min(found["plain"] for found in kept.values()) < 0.5
    others = compare_coverage.kept(compare_coverage.OTHERS)
    assert len(others) == 300
    for label, found in others.items():
        assert compare_coverage.faults(label, 1000, found) == [], label
        assert min(found["change"], found["after"]) > compare_coverage.LEAST, label
    power = json.loads((BENCHMARKS / "results" / "compare_power.json").read_text())
    false = [found for label, found in power.items() if label.endswith(" 0 points")]
    assert len(false) == len(compare_power.KINDS) * len(compare_power.SIZES)
    assert max(found["paired"] for found in false) < 0.05 + 3 * (0.05 / 4000) ** 0.5
