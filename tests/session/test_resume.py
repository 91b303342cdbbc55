"""What a resumed guard takes up: the user's settings win, and each piece of state is whole."""

import json
import warnings

import pytest
import torch
from tiny import BanditPolicy

from passk_guard import HeldOutPool, PassKGuard, PassKGuardConfig, PassKGuardWarning, PassKObjective
from passk_guard.runtime.stored import Piece, save_pieces, take_up_pieces

CONTEXTS = 64
SETTINGS = {"k": 4, "reference_prompts": 16, "num_generations": 8, "every": 5, "group_by": "kind"}


def rows(mark=""):
    return [{"prompt": f"{mark}{i}", "kind": "odd" if i % 2 else "even"} for i in range(CONTEXTS)]


def make_guard(held_out=None, sampling=None, objective=None, **settings):
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    config = PassKGuardConfig(**SETTINGS | settings)
    pool = HeldOutPool(held_out or rows(), config.seed)
    return PassKGuard(
        policy,
        pool,
        config,
        isolation=policy.isolated,
        objective=objective,
        sampling={"temperature": 1.0, "verifier": "exact"} | (sampling or {}),
    )


def saved(tmp_path, **settings):
    """A guard in an episode, its state as it comes back from a checkpoint."""
    guard = make_guard(floor=0.99, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PassKGuardWarning)
        for step in range(0, 20, 5):
            guard.probe(step)
            with torch.no_grad():
                guard.policy.weight += 0.05
    torch.save(guard.state_dict(), tmp_path / "passk_guard.pt")
    return guard, torch.load(tmp_path / "passk_guard.pt", weights_only=True)


def resumed(state, message=None, **settings):
    guard = make_guard(**{"floor": 0.99, **settings})
    if message is None:
        guard.load_state_dict(state)  # a warning would fail the test
    else:
        with pytest.warns(PassKGuardWarning, match=message):
            guard.load_state_dict(state)
    return guard


def part(guard, name):
    found = guard.state_dict()[name]["state"]
    return json.loads(json.dumps(found, default=lambda tensor: tensor.tolist()))


def goes_on(one, other, *names):
    return [part(one, name) == part(other, name) for name in names]


TRACK, GROUPS = "pass@1 and its reference", "pass@1 of the groups"
ALIGNMENT, STATES, ALARMS = "alignment", "named states", "open alarms"


def test_a_fast_policys_state_is_read_back_too(tmp_path):
    """One that stored rollouts say too little of, so that fixes alone tell of it."""
    guard = make_guard()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PassKGuardWarning)
        for step in range(0, 20, 5):
            guard.probe(step)
            with torch.no_grad():
                guard.policy.weight += torch.randn(guard.policy.weight.shape)
    assert guard._prober.levels._reference is None
    torch.save(guard.state_dict(), tmp_path / "passk_guard.pt")
    other = make_guard()
    other.load_state_dict(torch.load(tmp_path / "passk_guard.pt", weights_only=True))
    assert part(other, TRACK) == part(guard, TRACK)


def test_nothing_changed_takes_up_everything(tmp_path):
    guard, state = saved(tmp_path)
    other = resumed(state)
    names = [name for name in guard.state_dict() if name != "schema"]
    assert len(names) > 9
    assert all(goes_on(guard, other, *names))
    fresh = make_guard(floor=0.99)
    assert not any(goes_on(guard, fresh, TRACK, GROUPS, ALIGNMENT, STATES, ALARMS))


@pytest.mark.parametrize(
    "change",
    [
        {"pass1_tolerance": 0.2},
        {"false_alarms": 0.05},
        {"every": 50},
        {"max_overhead": 0.01},
        {"action": "stop"},
        {"log_prompts": True},
        {"memory_limit": 1000},
    ],
)
def test_what_says_how_to_watch_touches_no_state(tmp_path, change):
    guard, state = saved(tmp_path)
    other = resumed(state, **change)
    assert all(goes_on(guard, other, TRACK, GROUPS, ALIGNMENT, STATES, ALARMS, "schedule"))


def test_another_k_wins_and_keeps_track_and_reference(tmp_path):
    guard, state = saved(tmp_path, objective=PassKObjective(4), action="mix")
    assert guard.pass1_weight > 0
    other = resumed(
        state,
        r"k: 4 -> 2\)\. The new settings apply\. Starts afresh: alignment, named states, remedy\. "
        r"Goes on: open alarms, pass@1 and its reference",
        k=2,
        objective=PassKObjective(2),
        action="mix",
    )
    assert other.k == 2
    assert other.pass1_weight == 0
    assert all(goes_on(guard, other, TRACK, GROUPS))
    before = guard.history[-1].track
    after = other.probe(20)
    assert after.track.reference == 0.99
    assert after.drift is not None  # on the stored rollouts
    assert after.alignment.k == 2
    assert abs(after.track.pass_at_1 - before.pass_at_1) < 0.3


def test_another_pool_is_another_pass_at_1(tmp_path):
    guard, state = saved(tmp_path)
    other = resumed(
        state, "prompts: .* Starts afresh: pass@1 and its reference", held_out=rows("x")
    )
    assert not any(goes_on(guard, other, TRACK, GROUPS, ALIGNMENT, STATES))
    with pytest.warns(PassKGuardWarning, match="level alarm"):  # this floor is nowhere near
        assert other.probe(20).drift is None  # a new reference
    assert part(other, "schedule")["steps"] == part(guard, "schedule")["steps"]


@pytest.mark.parametrize(
    "sampling", [{"temperature": 0.7}, {"verifier": "format"}, {"success_threshold": 2}]
)
def test_other_rollouts_are_another_pass_at_1(tmp_path, sampling):
    guard, state = saved(tmp_path)
    if set(sampling) <= {"temperature", "verifier"}:
        other = resumed(state, "Starts afresh: pass@1 and its reference", sampling=sampling)
        assert goes_on(guard, other, TRACK) == [False]
    else:  # a setting that the checkpoint did not know
        resumed(state, sampling=sampling)


def test_a_setting_that_is_no_longer_said_counts_as_changed(tmp_path):
    _, state = saved(tmp_path, sampling={"template": "chat"})
    resumed(state, "template: chat -> None")


def test_other_groups_keep_the_track_of_all(tmp_path):
    guard, state = saved(tmp_path)
    other = resumed(state, "group_by: kind -> None", group_by=None)
    assert goes_on(guard, other, TRACK, GROUPS, ALIGNMENT) == [True, False, True]


@pytest.mark.parametrize(
    "change", [{"watch": "target_k"}, {"num_generations": 12}, {"parameters": "weight"}]
)
def test_other_evidence_starts_the_alignment_alarm_afresh(tmp_path, change):
    guard, state = saved(tmp_path)
    other = resumed(state, "Starts afresh: alignment", **change)
    assert goes_on(guard, other, TRACK, GROUPS, ALIGNMENT) == [True, True, False]


def test_a_remedy_that_is_taken_up_later_keeps_the_floor(tmp_path):
    guard, state = saved(tmp_path)
    other = resumed(state, "remedy: None -> mix", action="mix", objective=PassKObjective(4))
    assert all(goes_on(guard, other, TRACK))
    assert other.pass1_weight == 0


def test_a_remedy_that_is_given_up_lets_go(tmp_path):
    guard, state = saved(tmp_path, objective=PassKObjective(4), action="mix")
    assert guard.pass1_weight > 0
    other = resumed(state, "remedy: mix -> None", objective=PassKObjective(4))
    assert other.pass1_weight == 0


def test_what_an_action_of_ones_own_has_set_goes_on(tmp_path):
    guard, _ = saved(tmp_path, objective=PassKObjective(4))
    guard.objective.pass1_weight, guard.objective.k = 0.3, 3
    other = resumed(guard.state_dict(), objective=PassKObjective(4))
    assert (other.pass1_weight, other.k) == (0.3, 3)
    told = "pass1_weight: 0.0 -> 0.5"
    other = resumed(guard.state_dict(), told, objective=PassKObjective(4, pass1_weight=0.5))
    assert (other.pass1_weight, other.k) == (0.5, 4)


def test_pieces_are_loaded_whole_or_not_at_all():
    held = {"a": 1, "b": 2}
    pieces = [
        Piece(name, (name,), lambda n=name: held[n], lambda v, n=name: held.update({n: v}))
        for name in held
    ]
    state = save_pieces(pieces, {"a": "x", "b": "y"})
    held.update(a=0, b=0)
    taken = take_up_pieces(pieces, {"a": "x", "b": "other"}, state)
    assert held == {"a": 1, "b": 0}
    assert (taken.kept, taken.afresh) == (("a",), ("b",))
    assert "b: y -> other" in taken.message


def test_the_fingerprint_is_of_the_content():
    assert HeldOutPool(rows()).fingerprint == HeldOutPool(rows(), seed=3).fingerprint
    changed = rows()
    changed[40]["kind"] = "other"
    assert HeldOutPool(rows()).fingerprint != HeldOutPool(changed).fingerprint
    assert HeldOutPool(rows()).fingerprint != HeldOutPool(rows()[::-1]).fingerprint
    turned = [dict(reversed(row.items())) for row in rows()]
    assert HeldOutPool(rows()).fingerprint == HeldOutPool(turned).fingerprint
    odd = [{"prompt": "a", "table": {1: 2, "b": {(3, 4): 5}}} for _ in range(4)]
    assert HeldOutPool(odd).fingerprint
    objects = [{"prompt": "a", "extra": object()} for _ in range(4)]
    assert HeldOutPool(objects).fingerprint == HeldOutPool(objects[::-1]).fingerprint
