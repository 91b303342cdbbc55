"""The lines of a run's JSONL, as plain dicts: ``look`` says which kind each is.

===========  ===================================================================================
``start``    which run, settings, pool, trainer, time; again after each resume
``probe``    scalars (:mod:`passk_guard.reporting.scalars`), the alarms that are open, the
             conflict, prompts lost and won, the verifier's verdicts, now and then a
             :class:`~passk_guard.reporting.snapshot.Snapshot`
``rescore``  the same without what only a probe knows
``lost``     a probe that failed, and why
``end``      the run ended: what the guard cost, the last probe's picture
===========  ===================================================================================

Every line carries the ``run`` that wrote it. Prompts appear by row id; by their text, as it is,
only with ``log_prompts=True``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from passk_guard.look import Failure, Look, Probe
from passk_guard.prompts.identity import prompt_text
from passk_guard.reporting.conflicts import Conflicts, PromptConflict
from passk_guard.reporting.snapshot import Snapshot
from passk_guard.reporting.watched import Watched
from passk_guard.statistics.lost_prompts import ChangedPrompts
from passk_guard.version import __version__

Record = dict[str, Any]

_QUOTED = 10  # of the lost, and of the won


def start_record(guard: Watched, step: int, trainer: str) -> Record:
    """What is about to be watched, from ``step`` optimizer steps on."""
    return {
        "step": step,
        "look": "start",
        "run": guard.run_id,
        "began": guard.began,
        "time": _now(),
        "version": __version__,
        "trainer": trainer,
        "pool": len(guard.pool),
        "total_steps": guard.total_steps,
        "config": {name: _named(value) for name, value in vars(guard.config).items()},
    }


def look_record(
    found: Look,
    values: Mapping[str, float],
    conflicts: Conflicts | None = None,
    rows: Sequence[Mapping[str, Any]] | None = None,
    picture: Snapshot | None = None,
    states: Sequence[str] = (),
) -> Record:
    """A probe or re-scoring.

    Args:
        found: the look.
        values: its scalars by key.
        conflicts: prompts and pairs behind a conflict that is open.
        rows: the pool, to quote prompts; ``None``: by row id only.
        picture: of this probe, or of the last one before.
        states: named ones that hold and are no conflict.
    """
    record: Record = {
        "step": found.step,
        "look": "probe" if isinstance(found, Probe) else "rescore",
        **{key.removeprefix("passk_guard/"): value for key, value in values.items()},
        "open": list(found.conflicts),
        "leading": [kind for kind in found.conflicts if kind.leading],
        "states": list(states),
    }
    if found.alarm is not None:
        record |= {"fired": list(found.alarm.fired), "message": found.alarm.message}
    if found.cause is not None:
        record["cause"] = found.cause
    if found.turnover is not None:
        record["turnover"] = _turnover(found.turnover, rows)
    if isinstance(found, Probe) and found.verifier is not None:
        record["verifier"] = vars(found.verifier)
    if conflicts is not None:
        record["conflict"] = conflict_record(conflicts, rows)
    return record | _picture(picture)


def lost_record(failure: Failure) -> Record:
    """A probe that failed."""
    return {"step": failure.step, "look": "lost", "reason": failure.reason}


def end_record(guard: Watched, step: int) -> Record:
    """The end of training."""
    record = {"step": step, "look": "end", "time": _now(), "overhead": guard.overhead}
    return record | _picture(Snapshot.of(guard.history[-1]) if guard.history else None)


def _picture(shown: Snapshot | None) -> Record:
    if shown is None:
        return {}
    return {"picture": {"step": shown.step, "k": shown.k, **shown.record()}}


def conflict_record(conflicts: Conflicts, rows: Sequence[Mapping[str, Any]] | None) -> Record:
    """Prompts and pairs; with their texts where there are ``rows``."""

    def prompt(one: PromptConflict) -> Record:
        text = {} if rows is None else {"prompt": prompt_text(rows[one.row])}
        return {**vars(one), **text}

    return {
        "steps": list(conflicts.steps),
        "prompts": [prompt(one) for one in conflicts.prompts],
        "pairs": [
            {**vars(pair), "first": prompt(pair.first), "second": prompt(pair.second)}
            for pair in conflicts.pairs
        ],
    }


def _turnover(found: ChangedPrompts, rows: Sequence[Mapping[str, Any]] | None) -> Record:
    quoted = [] if rows is None else [*found.lost[:_QUOTED], *found.won[:_QUOTED]]
    texts = {} if rows is None else {"texts": {str(i): prompt_text(rows[i]) for i in quoted}}
    return {**vars(found), **texts}


def _named(value: Any) -> Any:
    """A setting for JSON: of functions the name."""
    if isinstance(value, (list, tuple)):
        return [_named(part) for part in value]
    return getattr(value, "__name__", repr(value)) if callable(value) else value


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
