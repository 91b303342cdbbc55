"""A damaged state costs the piece that is damaged and what rests on it, with a reason, no more."""

import copy
import math
import warnings

import pytest
import torch
from places import DATA
from test_resume import (
    ALARMS,
    ALIGNMENT,
    CONTEXTS,
    GROUPS,
    ORDER,
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


def damages(value):
    """Other values in the place of one, each with a name."""
    yield "NaN", NAN
    yield "text", "damaged"
    if isinstance(value, list):
        if value:
            yield "shorter", value[:-1]
        yield "longer", [*value, *(value[:1] or [NAN])]
    elif isinstance(value, torch.Tensor):
        yield "shorter", value[:-1]
        yield "longer", torch.cat([value, value[:1]])
        if value.is_floating_point():
            yield "not finite", torch.full_like(value, NAN)
    else:
        yield "a list", [value, value]


def places(state, path=()):
    """Every place in nested dicts and lists; of a list the first and the last entry."""
    inside = state.items() if isinstance(state, dict) else []
    if isinstance(state, list):
        inside = [(i, state[i]) for i in sorted({0, len(state) - 1} if state else ())]
    for key, value in inside:
        yield (*path, key), value
        yield from places(value, (*path, key))


def with_other(state, path, change):
    """A copy of nested dicts and lists in which one place was changed; tensors are shared."""
    if not path:
        return change(state)
    key, *deeper = path
    other = copy.copy(state)
    if deeper:
        other[key] = with_other(state[key], deeper, change)
    else:
        change(other)
    return other


def damaged(state):
    """States with one thing wrong each: where, what, and the state."""
    for path, value in places(state):
        if isinstance(path[-1], str):

            def without(held, key=path[-1]):
                del held[key]

            yield path, "deleted", with_other(state, path, without)
        for what, other in damages(value):

            def put(held, key=path[-1], other=other):
                held[key] = other

            yield path, what, with_other(state, path, put)


# Any list of rows of the pool is one that could have been left; a batch less, or one twice, is a
# run that had fewer or more; a setting that was not known is no change; a group may be one that was
# not drawn yet; any text may be the name of another controller; a prompt may not have been drawn;
# earlier releases had less; batches of other parameters are let go of at the next look.
HARMLESS = {
    "text": ("named", "parameters"),
    "shorter": (
        "left",
        "carriers",
        "active",
        "raised",
        "probe",
        "batches",
        "counts",
        "first",
        "last",
    ),
    "longer": ("active", "raised", "carriers", "probe", "rescore", "batches", "counts"),
    "deleted": (
        *("schema", "probe", "scale", "steering", "counts", "verifier"),
        *(
            "cause",
            "left",
            "within",
            "pace",
            "change_at_k",
            "room",
            "kept",
            "parameters",
            "open",
            "drift",
            "shown",
            "unit",
        ),
    ),
}


def may_pass(path, what):
    if path[-1] in HARMLESS.get(what, ()):
        return True
    if path[:2] == ("_drift of pass@k", "state"):  # which is empty
        return what != "deleted"
    if what == "deleted":
        named = {"depends", "settled", "variance", "credit"} & set(path[:-1])
        optional = path[-1] in ("advantages", "rewards", "group_size", "sampling_log_probs")
        of_groups = path[:-1] == (GROUPS, "state") or path[-3:-1] == ("controller", "groups")
        return optional or of_groups or (named and path[-1] != "prompts")
    return False


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A saved state with an engaged remedy, named states and all else."""
    settings = {"objective": PassKObjective(4), "action": "mix"}
    return small(saved(tmp_path_factory.mktemp("good"), **settings)[1])


def small(state):
    """With the first batch and the latest alone, of which :func:`places` looks at every place."""
    return with_other(state, (TRACK, "state", "store"), forget_batches)


def forget_batches(levels):
    first, *_, latest = levels["store"]["batches"]
    levels["store"] = {**levels["store"], "batches": [first, latest]}


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
    silent, tried = [], 0
    for path, what, state in damaged(good):
        guard, taken, said = taken_up(state)
        tried += 1
        where = (path, what)
        if taken.afresh:
            (text,) = said
            piece = path[0].removeprefix("_")
            assert path[0] == "schema" or piece in text, (where, text)
            assert len(text) < 900, where
            # What starts afresh is what was damaged, or follows it.
            assert set(taken.afresh) <= {path[0], "_floor", GROUPS, "_drift of pass@k"} or (
                path[0] == "schema"
            ), (where, taken.afresh)
        else:
            assert not said, where
            if not may_pass(path, what):
                silent.append(where)
        assert guard.due(20) == "probe", where
    assert not silent, silent
    assert tried > 900


def sampled(damages_of, step):
    return [one for i, one in enumerate(damages_of) if i % step == 0]


@pytest.mark.parametrize("shard", range(2))
@pytest.mark.filterwarnings("ignore:passk-guard")
def test_the_guard_looks_on(good, shard):
    """A probe and a re-scoring come through, whatever was wrong."""
    for path, what, state in sampled(damaged(good), 7)[shard::2]:
        guard, _, _ = taken_up(state)
        assert guard.run(guard.due(20), 20) is not None, (path, what, guard.failures)
        assert guard.rescore(23) is not None, (path, what, guard.failures)
        assert math.isfinite(guard.history[-1].track.change)


@pytest.mark.parametrize("name", ["state_0_1_0", "state_pieces"])
@pytest.mark.filterwarnings("ignore:passk-guard")
def test_a_damaged_state_of_an_earlier_release_stops_nothing(name):
    state = torch.load(DATA / f"{name}.pt", weights_only=True)
    state = small(state) if TRACK in state else state
    for path, what, other in damaged(state):
        guard, _, _ = taken_up(other)
        assert guard.due(20) == "probe", (path, what)


@pytest.mark.parametrize("state", [[], "text", 3, {}, {"prober": None}, {"pool": {"rows": 64}}])
def test_what_is_no_state_at_all_starts_everything_afresh(state):
    guard, taken, said = taken_up(state)
    assert not set(taken.kept) - {"_run"}
    assert len(said) == 1
    assert guard.due(20) == "probe"


def test_a_state_of_a_later_release_is_not_guessed_at(tmp_path):
    _, state = saved(tmp_path)
    told = rf"schema {SCHEMA + 1}, and this release reads up to {SCHEMA}: update passk-guard"
    other = resumed({**state, "schema": SCHEMA + 1}, told)
    assert part(other, TRACK) == part(make_guard(floor=0.99), TRACK)
    resumed({**state, "schema": "new"}, "schema must be a whole number")


def test_each_piece_is_loaded_on_its_own(tmp_path):
    guard, state = saved(tmp_path)
    del state[STATES]["state"]["start"]
    told = r"\(named states: start is missing\)\. Starts afresh: named states\. Goes on: open"
    other = resumed(state, told)
    for name in (TRACK, GROUPS, ORDER, ALIGNMENT, ALARMS, "schedule", "remedy"):
        assert part(other, name) == part(guard, name)
    assert part(other, STATES) == part(make_guard(), STATES)


def test_what_rests_on_a_reference_goes_with_it(tmp_path):
    guard, state = saved(tmp_path)
    assert "level" in guard.history[-1].conflicts
    state[TRACK]["state"]["track"]["cov"][0][0] = NAN
    other = resumed(state, r"reference: cov must hold finite .* Starts afresh: pass@1 and its ref")
    fresh = make_guard(floor=0.99)
    for name in (TRACK, GROUPS, "_floor"):
        assert part(other, name) == part(fresh, name)
    assert part(other, ALARMS)["active"] == []  # its evidence is gone
    assert part(other, ORDER) == part(guard, ORDER)


def test_nan_in_the_schedule_does_not_end_all_probing(tmp_path):
    _, state = saved(tmp_path)
    state["schedule"]["state"]["spent"]["probe"] = NAN
    told = "schedule: probe must be a finite number, got nan"
    other = resumed(state, told, every=None, max_overhead=0.5)
    assert other.due(20) == "probe"


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("held_out", [rows()[:40], rows("x")], ids=["smaller", "as large"])
def test_another_pool_loses_no_probe_and_gets_a_reference_of_its_own(tmp_path, held_out, known):
    """Also where the state does not say of which prompts it is."""
    _, state = saved(tmp_path)
    if not known:
        for piece in state.values():
            if isinstance(piece, dict):
                piece["depends"] = {}
    other = resumed(state, "Starts afresh: pass@1 and its reference", held_out=held_out)
    with pytest.warns(PassKGuardWarning, match="level alarm"):  # this floor is nowhere near
        assert other.probe(20).drift is None
    assert other.rescore(22) is not None
    assert not other.failures


def test_a_row_that_the_pool_has_not_is_seen(tmp_path):
    """Whatever the fingerprint says."""
    _, state = saved(tmp_path)
    state[TRACK]["state"]["store"]["batches"][0]["groups"][0]["row"] = CONTEXTS
    other = resumed(state, "row 64, which is not in this pool of 64 rows")
    assert part(other, GROUPS) == {}
    _, state = saved(tmp_path)
    state[ALIGNMENT]["state"]["carriers"] = [CONTEXTS]
    resumed(state, r"alignment: carriers has row 64.* Starts afresh: alignment\.")


def test_a_group_that_was_scored_again_before_it_was_drawn_is_no_damage(tmp_path):
    """Groups that a resumed run has, and its checkpoint had not."""
    _, state = saved(tmp_path, group_by=None)
    other = resumed(state, "group_by: None -> kind")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PassKGuardWarning)
        other.rescore(22)
    resumed(other.state_dict())


def test_the_first_releases_state_does_not_fit_another_pool():
    state = torch.load(DATA / "state_0_1_0.pt", weights_only=True)
    other = resumed(state, "rows: 64 -> 40.*Starts afresh: pass@1", held_out=rows()[:40])
    assert part(other, TRACK) == part(make_guard(), TRACK)


def test_what_follows_another_piece_is_named_where_it_alone_is_concerned(tmp_path):
    _, state = saved(tmp_path)
    state["_costs"]["state"]["probe"] = ["dear"]
    other = resumed(
        state, r"\(costs: probe must hold finite .* Starts afresh: costs\. Goes on: open"
    )
    assert part(other, "_costs") == {"probe": [], "rescore": []}
