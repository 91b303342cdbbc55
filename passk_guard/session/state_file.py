"""What a checkpoint keeps of a guard and its pass@1 term."""

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


def write_state(path: Path, state: Callable[[], Mapping[str, Any]], strict: bool) -> None:
    """Put a state into a checkpoint; a failure is reported, and costs no run.

    Args:
        path: file to write.
        state: gives the state.
        strict: raise what fails.
    """

    def not_saved(error: Exception) -> None:
        warn(
            f"the guard's state was not saved ({reason_of(error)}). Training goes on; a "
            "run resumed from this checkpoint starts its guard afresh."
        )

    with survived(strict, not_saved):
        file = io.BytesIO()  # torch's own writer hides what went wrong with the disk
        torch.save(state(), file)
        # A run that is killed meanwhile leaves no half-written file behind.
        path.with_suffix(".tmp").write_bytes(file.getvalue())
        path.with_suffix(".tmp").replace(path)


def take_up(
    load: Callable[[], Mapping[str, Any] | None],
    guard: PassKGuard,
    anchors: AnchorTerm | None,
    journal: Journal,
) -> None:
    """Go on from what :func:`whole_state` gave; what cannot be read is said, and costs no run.

    To be called before the journal is begun.

    Args:
        load: gives the state; ``None`` or an empty one where there is none.
        guard: takes it over.
        anchors: takes its part over.
        journal: in the folder that the run writes to; what lies there may be another run's.
    """
    there = journal.last_start() if guard.is_main else {}
    afresh = "The guard starts afresh: losses before this step are not seen."
    if "run" in there:
        afresh += " The journal that lies in the run's folder is kept as *.old."

    def warn_once(text: str) -> None:
        if guard.is_main:
            warn(text)

    def unreadable(error: Exception) -> None:
        warn_once(
            f"the guard state in this checkpoint cannot be taken up ({reason_of(error)}). {afresh}"
        )

    with survived(guard.config.strict, unreadable):
        state = load()
        if state is not None and not isinstance(state, Mapping):
            raise TypeError(f"it is of type {type(state).__name__}")
        if not state:
            warn_once(f"there is no guard state in this checkpoint. {afresh}")
            return
        taken = guard.load_state_dict(state)
        if anchors is not None and state.get("anchors") is not None:
            try:
                anchors.load_state_dict(state["anchors"])
            except Exception as error:
                warn_once(
                    "the order of the anchor prompts in this checkpoint cannot be read "
                    f"({error}). It starts afresh; everything else was restored as reported above."
                )
            anchors.matched = anchors.matched and "remedy" in taken.kept  # else of any size
        if there.get("run") not in (None, guard.run_id):
            warn(
                f"the checkpoint belongs to run {guard.run_id}, which began {guard.began}, but "
                f"the journal {journal.path} belongs to run {there['run']}, which began "
                f"{there.get('began', 'at an unknown time')}. The guard's state belongs to the "
                "weights and is taken up; the other run's journal is kept beside the new one, as "
                "*.old. If this checkpoint is a stale one of an earlier run, resume from the right "
                "one, or empty the folder."
            )
