"""Everything that a checkpoint keeps of a guard and its pass@1 term."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from passk_guard.errors import reason_of, survived, warn
from passk_guard.guard import PassKGuard
from passk_guard.remedies.anchors import AnchorTerm
from passk_guard.reporting.journal import Journal
from passk_guard.runtime.stored import Unfit

FILE_NAME = "passk_guard.pt"


def whole_state(guard: PassKGuard, anchors: AnchorTerm | None) -> dict[str, Any]:
    """For ``torch.save``, readable with ``weights_only=True``."""
    return {**guard.state_dict(), "anchors": None if anchors is None else anchors.state_dict()}


def read_state(path: Path) -> Mapping[str, Any] | None:
    """The state in a checkpoint; ``None`` where there is none."""
    if not path.exists():
        return None
    state: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def write_state(path: Path, state: Callable[[], Mapping[str, Any]], strict: bool = False) -> None:
    """Put a state into a checkpoint; where that fails it is said, and costs no run.

    Args:
        path: of the file.
        state: gives it.
        strict: raise what fails.
    """
    with survived(strict, _not_saved):
        file = io.BytesIO()  # torch's own writer hides what went wrong with the disk
        torch.save(state(), file)
        # A run that is killed meanwhile leaves no half-written file behind.
        path.with_suffix(".tmp").write_bytes(file.getvalue())
        path.with_suffix(".tmp").replace(path)


def _not_saved(error: Exception) -> None:
    warn(
        f"the guard's state was not saved ({reason_of(error)}). Training goes on; a "
        "run resumed from this checkpoint starts its guard afresh."
    )


def take_up(
    load: Callable[[], Mapping[str, Any] | None],
    guard: PassKGuard,
    anchors: AnchorTerm | None,
    journal: Journal | None = None,
) -> None:
    """Go on from what :func:`whole_state` gave; what cannot be read is said, and costs no run.

    To be called before :func:`~passk_guard.reporting.report.begin_run`, which writes down the run
    that the state is of.

    Args:
        load: gives the state; ``None`` or an empty one where there is none.
        guard: takes it over.
        anchors: likewise.
        journal: of the folder that the run writes to: what lies there may be another run's.
    """
    afresh = "The guard starts afresh: losses before this step are not seen."
    if journal is not None and guard.is_main and journal.last_start().get("run") is not None:
        afresh += " The journal that lies in the run's folder is kept as *.old."

    def unreadable(error: Exception) -> None:
        if guard.is_main:
            warn(
                "the guard state in this checkpoint cannot be taken up "
                f"({reason_of(error)}). {afresh}"
            )

    with survived(guard.config.strict, unreadable):
        state = load()
        if state is not None and not isinstance(state, Mapping):
            raise Unfit(f"it is not the state of a guard, but of type {type(state).__name__}")
        if not state:
            if guard.is_main:
                warn(f"there is no guard state in this checkpoint. {afresh}")
            return
        taken = guard.load_state_dict(state)
        if anchors is not None and state.get("anchors") is not None:
            _take_up_anchors(state["anchors"], guard, anchors, scaled="remedy" in taken.kept)
        if journal is not None and guard.is_main:
            _compare(guard, journal, named="_run" in taken.kept)


def _take_up_anchors(state: Any, guard: PassKGuard, anchors: AnchorTerm, *, scaled: bool) -> None:
    """Load the pass@1 term, whole or not at all.

    Args:
        state: of it.
        guard: says what is to be said.
        anchors: the term.
        scaled: whether its scale, which the guard keeps, has been taken up: else it is to be found
            anew.
    """
    before = anchors.state_dict()
    try:
        anchors.load_state_dict(state)
        anchors.matched = anchors.matched and scaled
    except Exception as error:
        anchors.load_state_dict(before)
        if guard.is_main:
            warn(
                "the order of the anchor prompts in this checkpoint cannot be read "
                f"({error}). It starts afresh; all else is as it was said."
            )


def _compare(guard: PassKGuard, journal: Journal, *, named: bool) -> None:
    """Say so where the checkpoint and the journal in the run's folder belong to different runs.

    Args:
        guard: has taken up the checkpoint's state.
        journal: of the folder.
        named: whether the state said of which run it is; else the guard goes by a new id.
    """
    there = journal.last_start()
    other = there.get("run")
    if other is None or other == guard.run_id:
        return
    ours = f"run {guard.run_id}, which began {guard.began}"
    warn(
        f"the checkpoint belongs to {ours if named else 'a run that it does not name'}, but the "
        f"journal {journal.path} belongs to run {other}, which began "
        f"{there.get('began', 'at an unknown time')}. "
        "The guard's state belongs to the weights and is taken up; the other run's journal is kept "
        "beside the new one, as *.old. If this checkpoint is a stale one of an earlier run, "
        "resume from the right one, or empty the folder."
    )
