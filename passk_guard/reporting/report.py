"""What is written of a look, whoever the trainer and its loggers are.

A :class:`Report` is made on the main process. Its ``record`` goes into the run's JSONL; scalars go
to every logger; texts and figures to those that take them, at most every few probes, because
drawing and reading take time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from passk_guard.errors import reason_of, survived, warn
from passk_guard.look import Look, Probe
from passk_guard.reporting.conflicts import find_conflicts
from passk_guard.reporting.journal import Journal
from passk_guard.reporting.markdown import alarm_card, conflict_table, turnover_text
from passk_guard.reporting.record import end_record, look_record, lost_record, start_record
from passk_guard.reporting.scalars import scalars
from passk_guard.reporting.snapshot import Snapshot
from passk_guard.reporting.watched import Watched

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FIGURES_EVERY = 5  # probes
_TABLE_EVERY = 3


@dataclass(frozen=True)
class Report:
    """What to write.

    Attributes:
        step: optimizer steps done.
        scalars: by key, see :mod:`passk_guard.reporting.scalars`.
        texts: Markdown by key, safe to render.
        figures: functions that draw, by key; matplotlib is imported as one is called.
        record: one line of the run's JSONL.
        alarm: what the alarm says that the look has raised, as it is; ``None`` without one.
    """

    step: int
    scalars: dict[str, float]
    texts: dict[str, str]
    figures: dict[str, Callable[[], Figure]]
    record: dict[str, Any]
    alarm: str | None


def begin_run(guard: Watched, journal: Journal, step: int, trainer: str) -> None:
    """Open the journal of a run that has done ``step`` steps, on the main process."""
    journal.begin(step, guard.run_id)
    _write(journal, guard, step, lambda: start_record(guard, step, trainer))


def end_run(guard: Watched, journal: Journal, step: int) -> None:
    """Write down that training has ended, on the main process."""
    _write(journal, guard, step, lambda: end_record(guard, step))


def publish(
    found: Look | None,
    guard: Watched,
    journal: Journal,
    send: Callable[[Report], None],
) -> None:
    """Write a look to the journal and send it to the loggers, on the main process.

    Nothing that goes wrong here reaches the run; ``journal`` and ``send`` see to themselves.

    Args:
        found: the look; ``None`` where it was lost.
        guard: that took it.
        journal: of the run.
        send: takes it to the loggers.
    """
    if found is None:
        lost = guard.failures[-1]
        _write(journal, guard, lost.step, lambda: lost_record(lost))
        return
    with survived(guard.config.strict, partial(_not_reported, found.step)):
        report = report_of(found, guard)
        journal.write(report.record)
        send(report)


def _write(journal: Journal, guard: Watched, step: int, make: Callable[[], dict[str, Any]]) -> None:
    with survived(guard.config.strict, partial(_not_reported, step)):
        journal.write(make())


def _not_reported(step: int, error: Exception) -> None:
    warn(f"step {step} could not be reported: {reason_of(error)}")


def all_scalars(found: Look, guard: Watched) -> dict[str, float]:
    """The look's scalars, and the guard's share of the run's time."""
    return {**scalars(found), "passk_guard/overhead": guard.overhead}


def report_of(found: Look, guard: Watched) -> Report:
    """What to write of a look that the guard has just taken.

    Prompts appear by row id, by their text only with ``log_prompts=True``: in the texts, escaped,
    and in the record, as they are.
    """
    conflicts = find_conflicts(guard.history) if found.conflict else None
    rows = guard.pool.rows if guard.config.log_prompts else None
    values = all_scalars(found, guard)
    texts: dict[str, str] = {}
    alarm = None if found.alarm is None else found.alarm.message
    if alarm is not None:
        texts["passk_guard/alarm"] = alarm_card(alarm)
    due = alarm is not None or _turn(found, guard, _TABLE_EVERY)
    if due and conflicts is not None and conflicts.steps:
        texts["passk_guard/conflicts"] = conflict_table(conflicts, rows)
    turnover = found.turnover
    if due and turnover is not None and (turnover.lost or turnover.won):
        texts["passk_guard/turnover"] = turnover_text(turnover, rows)
    picture = None
    if guard.history and (alarm is not None or _turn(found, guard, _FIGURES_EVERY)):
        picture = Snapshot.of(guard.history[-1])  # an alarm between probes rests on the last
    record = look_record(found, values, conflicts, rows, picture, guard.states)
    return Report(found.step, values, texts, _figures(found, picture), record, alarm)


def _turn(found: Look, guard: Watched, every: int) -> bool:
    """Whether this is the first of every so many probes."""
    return isinstance(found, Probe) and len(guard.history) % every == 1


def _figures(found: Look, picture: Snapshot | None) -> dict[str, Callable[[], Figure]]:
    drawn: dict[str, Callable[[], Figure]] = {}
    if isinstance(found, Probe) and found.curve:
        drawn["passk_guard/alignment_curve"] = lambda: _draw(
            "alignment_curve_figure", Snapshot.of(found)
        )
    if picture is not None and len(picture.rows):
        drawn["passk_guard/interference"] = lambda: _draw("interference_figure", picture)
        drawn["passk_guard/agreement"] = lambda: _draw("agreement_figure", picture)
    return drawn


def _draw(name: str, shown: Snapshot) -> Figure:
    from passk_guard.reporting import figures  # matplotlib is an extra

    figure: Figure = getattr(figures, name)(shown)
    return figure
