"""Errors where processes wait for one another; with several of them: test_split_faults.py."""

import pytest

from passk_guard.errors import HalfDone, survived
from passk_guard.runtime.lockstep import all_or_none
from passk_guard.runtime.processes import everywhere


@pytest.mark.parametrize("together", [True, False])
def test_one_process_alone_leaves_nobody_waiting(together):
    with pytest.raises(MemoryError, match="no room"), all_or_none(together):
        raise MemoryError("no room")

    def work():
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        everywhere(work, together=together)


def test_what_nobody_can_survive_is_not_survived():
    seen = []
    with pytest.raises(HalfDone, match="the others wait"), survived(False, seen.append):
        raise HalfDone("the others wait")
    with survived(False, seen.append):
        raise MemoryError("no room")
    assert [type(error) for error in seen] == [MemoryError]
