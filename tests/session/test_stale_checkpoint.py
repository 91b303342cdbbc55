"""What is taken up of a checkpoint belongs to the checkpoint's own run."""

import json

import pytest
import torch
from guarded_bandit import make_guard
from tiny import BanditPolicy

from passk_guard import HeldOutPool, PassKGuardWarning
from passk_guard.objectives.mixes import AnchorMix
from passk_guard.remedies.anchors import AnchorLoss, AnchorTerm
from passk_guard.reporting.journal import FILE_NAME, Journal
from passk_guard.reporting.report import begin_run
from passk_guard.rollouts.batching import PassSize
from passk_guard.session.state_file import take_up, whole_state


def begun(folder, step=0, state=None, message=None):
    guard, journal = make_guard(), Journal(folder)
    if state is not None:
        if message is None:
            take_up(lambda: state, guard, None, journal)  # a warning would fail the test
        else:
            with pytest.warns(PassKGuardWarning, match=message):
                take_up(lambda: state, guard, None, journal)
    begin_run(guard, journal, step, "Loop")
    return guard, journal


def runs(path):
    return [json.loads(line)["run"] for line in path.read_text().splitlines()]


def test_a_stale_checkpoint_of_another_run_is_not_taken_over_silently(tmp_path):
    stale, _ = begun(tmp_path / "a")
    stale.probe(0)
    state = whole_state(stale, None)
    other, _ = begun(tmp_path / "b")
    told = (
        rf"the checkpoint belongs to run {stale.run_id}, which began {stale.began[:10]}.* belongs "
        rf"to run {other.run_id}, which began {other.began[:10]}.* is taken up; .*\.old"
    )
    guard, journal = begun(tmp_path / "b", 5, state, told.replace("+", r"\+"))
    assert (guard.run_id, guard.began) == (stale.run_id, stale.began)
    assert guard.due(1) is None  # it has been looked at: the state is taken up
    assert runs(journal.path) == [stale.run_id]
    assert runs(tmp_path / "b" / f"{FILE_NAME}.old") == [other.run_id]


def test_a_third_runs_journal_is_not_written_over(tmp_path):
    first, _ = begun(tmp_path)
    state = whole_state(first, None)
    second, _ = begun(tmp_path)
    begun(tmp_path, 5, state, "the checkpoint belongs to run")
    assert runs(tmp_path / f"{FILE_NAME}.old") == [first.run_id]
    assert runs(tmp_path / f"{FILE_NAME}.old2") == [second.run_id]


def test_a_run_goes_on_in_its_own_journal(tmp_path):
    guard, _ = begun(tmp_path)
    _, journal = begun(tmp_path, 5, whole_state(guard, None))
    assert runs(journal.path) == [guard.run_id] * 2
    _, journal = begun(tmp_path / "new", 5, whole_state(guard, None))
    assert runs(journal.path) == [guard.run_id]


def test_a_journal_that_names_no_run_is_gone_on_with(tmp_path):
    (tmp_path / FILE_NAME).write_text('{"step": 0, "look": "start"}\n')
    guard, _ = begun(tmp_path / "other")
    _, journal = begun(tmp_path, 5, whole_state(guard, None))
    assert len(journal.path.read_text().splitlines()) == 2


def test_where_there_is_no_state_the_old_journal_is_kept(tmp_path):
    guard, _ = begun(tmp_path)
    begun(tmp_path, 5, {}, r"no guard state .* kept as \*\.old")
    assert runs(tmp_path / f"{FILE_NAME}.old") == [guard.run_id]


@pytest.mark.usefixtures("faults")
@pytest.mark.parametrize("state", [[1], "text", torch.ones(1)])
def test_what_is_no_state_costs_no_run(tmp_path, state):
    begun(tmp_path, 5, state, "cannot be taken up .TypeError: it is of type")


def anchor_term():
    policy = BanditPolicy(16, dim=3, seed=5)
    pool = HeldOutPool([{"prompt": str(i)} for i in range(16)])
    loss = AnchorLoss(policy, pool, 4, 4, policy.isolated, PassSize())
    return AnchorTerm(loss, AnchorMix(2), seed=0)


def test_the_anchor_prompts_are_loaded_whole_or_not_at_all():
    guard, anchors = make_guard(), anchor_term()
    anchors.loss.pool.draw(5)
    anchors.matched = True
    state = whole_state(guard, anchors)
    fresh = anchor_term()
    take_up(lambda: state, make_guard(), fresh, Journal(None))
    assert fresh.state_dict() == anchors.state_dict()
    for key, value in (("pool", {}), ("pool", 3)):
        other = anchor_term()
        with pytest.warns(PassKGuardWarning, match="the order of the anchor prompts"):
            take_up(
                lambda: {**state, "anchors": {**state["anchors"], key: value}},  # noqa: B023
                make_guard(),
                other,
                Journal(None),
            )
        assert other.state_dict() == anchor_term().state_dict()


def test_a_term_whose_scale_starts_afresh_is_matched_anew():
    """The scale is part of the remedy: without it, the term would be of any size."""
    anchors, fresh = anchor_term(), anchor_term()
    anchors.matched = True
    state = whole_state(make_guard(), anchors)
    del state["remedy"]
    with pytest.warns(PassKGuardWarning, match="remedy is missing"):
        take_up(lambda: state, make_guard(), fresh, Journal(None))
    assert not fresh.matched
