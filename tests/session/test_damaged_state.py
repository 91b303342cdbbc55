"""A damaged state costs the piece that is damaged and what rests on it, with a reason, no more."""

import copy
import math
import warnings

import pytest
import torch
from test_resume import (
    ALARMS,
    ALIGNMENT,
    GROUPS,
    STATES,
    TRACK,
    make_guard,
    part,
    resumed,
    rows,
    saved,
)

from passk_guard import PassKGuardWarning, PassKObjective
from passk_guard.resume import SCHEMA

NAN = math.nan


def places(state, path=()):
    """Every place in nested dicts and lists; of a list the first entry."""
    inside = state.items() if isinstance(state, dict) else list(enumerate(state[:1]))
    for key, value in inside:
        yield (*path, key), value
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def changed(state, path, value):
    """A copy of nested dicts and lists with another value in one place, or without it."""
    key, *deeper = path
    other = copy.copy(state)
    if deeper:
        other[key] = changed(state[key], deeper, value)
    elif value is None:
        del other[key]
    else:
        other[key] = value
    return other


# What lies in these is there or not: by row, sum, task or setting.
OPTIONAL = {"depends", "first", "last", "spent", "groups"}


def damaged(state):
    """States with one thing wrong each: where, and the state."""
    for path, value in places(state):
        optional = OPTIONAL & {path[-2:][0]} or path[-1] == "parameters"
        if isinstance(path[-1], str) and not optional and path[:-1] != (GROUPS, "state"):
            yield path, changed(state, path, None)
        if isinstance(value, torch.Tensor):
            yield path, changed(state, path, value[:-1])
            if value.is_floating_point() and path[-1] not in ("advantages", "rewards"):
                yield path, changed(state, path, torch.full_like(value, NAN))
        elif isinstance(value, float):
            yield path, changed(state, path, NAN)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A saved state with an engaged remedy, named states and all else."""
    settings = {"objective": PassKObjective(4), "action": "mix"}
    return saved(tmp_path_factory.mktemp("good"), **settings)[1]


def taken_up(state):
    guard = make_guard(floor=0.99, objective=PassKObjective(4), action="mix")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        taken = guard.load_state_dict(state)
    return guard, taken, [str(w.message) for w in said]


def test_one_thing_wrong_anywhere_costs_one_piece_and_no_probe(good):
    _, nothing, said = taken_up(good)
    assert not nothing.afresh
    assert not said
    tried = 0
    for tried, (path, state) in enumerate(damaged(good), start=1):
        guard, taken, said = taken_up(state)
        assert len(said) == 1, path
        (text,) = said
        assert path[0] == "schema" or path[0].removeprefix("_") in text, (path, text)
        assert len(text) < 900, path
        # What starts afresh is what was damaged, or follows it.
        followers = {path[0], "_floor", GROUPS}
        assert path[0] == "schema" or set(taken.afresh) <= followers, (path, taken.afresh)
        assert guard.due(20) == "probe", path
        if tried % 10 == 0:
            assert guard.run("probe", 20) is not None, (path, guard.failures)
            assert guard.rescore(23) is not None, (path, guard.failures)
            assert math.isfinite(guard.history[-1].track.change)
    assert tried > 150


@pytest.mark.parametrize("state", [[], "text", 3, {}, {"schema": SCHEMA + 1}])
def test_what_is_no_state_at_all_starts_everything_afresh(state):
    guard, taken, said = taken_up(state)
    assert not taken.kept
    assert len(said) == 1
    assert guard.due(20) == "probe"


def test_a_state_of_another_release_is_not_guessed_at(tmp_path):
    _, state = saved(tmp_path)
    told = rf"it has schema {SCHEMA + 1}, and this release of passk-guard reads {SCHEMA}"
    other = resumed({**state, "schema": SCHEMA + 1}, told)
    assert part(other, TRACK) == part(make_guard(floor=0.99), TRACK)


def test_each_piece_is_loaded_on_its_own(tmp_path):
    guard, state = saved(tmp_path)
    del state[STATES]["state"]["states"]["top"]
    told = r"\(named states: top is missing\)\. Starts afresh: named states\. Goes on: open"
    other = resumed(state, told)
    for name in (TRACK, GROUPS, ALIGNMENT, ALARMS, "schedule", "remedy"):
        assert part(other, name) == part(guard, name)
    assert part(other, STATES) == part(make_guard(), STATES)


def test_what_rests_on_a_reference_goes_with_it(tmp_path):
    guard, state = saved(tmp_path)
    assert "level" in guard.history[-1].conflicts
    state[TRACK]["state"]["track"]["cov"][0][0] = NAN
    other = resumed(state, r"reference: cov must be finite.* Starts afresh: pass@1 and its ref")
    fresh = make_guard(floor=0.99)
    for name in (TRACK, GROUPS, "_floor"):
        assert part(other, name) == part(fresh, name)
    assert part(other, ALARMS)["active"] == []  # its evidence is gone


def test_another_pool_loses_no_probe_and_gets_a_reference_of_its_own(tmp_path):
    _, state = saved(tmp_path)
    other = resumed(state, "Starts afresh: pass@1 and its reference", held_out=rows()[:40])
    with pytest.warns(PassKGuardWarning, match="level alarm"):  # this floor is nowhere near
        assert other.probe(20).drift is None
    assert other.rescore(22) is not None
    assert not other.failures


def test_a_group_that_was_scored_again_before_it_was_drawn_is_no_damage(tmp_path):
    """Groups that a resumed run has, and its checkpoint had not."""
    _, state = saved(tmp_path, group_by=None)
    other = resumed(state, "group_by: None -> kind")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PassKGuardWarning)
        other.rescore(22)
    resumed(other.state_dict())


def test_what_follows_another_piece_is_named_where_it_alone_is_concerned(tmp_path):
    _, state = saved(tmp_path)
    state["_costs"]["state"]["probe"] = [NAN]
    other = resumed(state, r"\(costs: probe must be finite.* Starts afresh: costs\. Goes on: open")
    assert part(other, "_costs") == {"probe": [], "rescore": []}
