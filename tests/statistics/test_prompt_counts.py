"""Counts of the reference's prompts over the looks."""

import numpy as np
import torch

from passk_guard.rollouts.group import RolloutGroup
from passk_guard.statistics.prompt_counts import PromptCounts


def group(row, correct, n):
    ids = torch.ones(n, 1, dtype=torch.long)
    return RolloutGroup(row, ids, ids, ids, (torch.arange(n) < correct).float())


def test_the_last_looks_have_as_many_rollouts_as_the_start():
    counts = PromptCounts([group(7, 6, 6), group(3, 0, 6)])
    assert [v.tolist() for v in counts.recent()] == [[6, 0], [6, 6]]
    counts.add([group(7, 1, 2), group(3, 2, 2)])
    assert [v.tolist() for v in counts.recent()] == [[7, 2], [8, 8]]  # the start fills up
    assert [v.tolist() for v in counts.since_start()] == [[1, 2], [2, 2]]
    for _ in range(5):
        counts.add([group(7, 0, 2), group(3, 2, 2)])
    assert [v.tolist() for v in counts.recent()] == [[0, 6], [6, 6]]  # what was is forgotten
    counts.add([group(3, 0, 2)])  # nothing of the other could be scored
    assert [v.tolist() for v in counts.recent()] == [[0, 6], [6, 8]]


def test_its_state_goes_on():
    counts = PromptCounts([group(7, 5, 6), group(3, 0, 6)])
    counts.add([group(3, 1, 2)])
    other = PromptCounts.load(counts.state_dict())
    assert other.rows == (7, 3)
    assert all(np.array_equal(a, b) for a, b in zip(other.recent(), counts.recent(), strict=True))
