"""What is written of a look, whoever the trainer and its loggers are.

A :class:`Report` is made on the main process. Its ``record`` goes into the run's JSONL; scalars go
to every logger; texts and figures to those that take them, at most every few probes, because
drawing and reading take time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from passk_guard.actions import warn
from passk_guard.probe import Probe, Rescore
from passk_guard.reporting.conflicts import Conflicts, PromptConflict, find_conflicts
from passk_guard.reporting.journal import Journal
from passk_guard.reporting.markdown import alarm_card, conflict_table, prompt_text
from passk_guard.reporting.scalars import scalars

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from passk_guard.guard import PassKGuard

__all__ = ["Report", "all_scalars", "publish", "report_of"]

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
    """

    step: int
    scalars: dict[str, float]
    texts: dict[str, str]
    figures: dict[str, Callable[[], Figure]]
    record: dict[str, Any]


def publish(
    found: Probe | Rescore, guard: PassKGuard, journal: Journal, send: Callable[[Report], None]
) -> None:
    """Write a look to the journal and send it to the loggers, on the main process.

    Nothing that goes wrong here reaches the run; ``journal`` and ``send`` see to themselves.
    """
    try:
        report = report_of(found, guard)
    except Exception as error:
        warn(f"step {found.step} could not be reported: {type(error).__name__}: {error}")
        return
    journal.write(report.record)
    send(report)


def all_scalars(found: Probe | Rescore, guard: PassKGuard) -> dict[str, float]:
    """The look's scalars, and the guard's share of the run's time."""
    return {**scalars(found), "passk_guard/overhead": guard.overhead}


def report_of(found: Probe | Rescore, guard: PassKGuard) -> Report:
    """What to write of a look that the guard has just taken.

    Prompts appear by row id, by their text only with ``log_prompts=True``: in the texts, escaped,
    and in the record, as they are.
    """
    conflicts = find_conflicts(guard.history) if found.conflict else None
    rows = guard.pool.rows if guard.config.log_prompts else None
    values = all_scalars(found, guard)
    texts: dict[str, str] = {}
    alarmed = found.alarm is not None
    if found.alarm is not None:
        texts["passk_guard/alarm"] = alarm_card(found.alarm.message)
    due = alarmed or _turn(found, guard, _TABLE_EVERY)
    if due and conflicts is not None and conflicts.steps:
        texts["passk_guard/conflicts"] = conflict_table(conflicts, rows)
    return Report(
        found.step, values, texts, _figures(found, guard), _record(found, values, conflicts, rows)
    )


def _turn(found: Probe | Rescore, guard: PassKGuard, every: int) -> bool:
    """Whether this is the first of every so many probes."""
    return isinstance(found, Probe) and len(guard.history) % every == 1


def _figures(found: Probe | Rescore, guard: PassKGuard) -> dict[str, Callable[[], Figure]]:
    drawn: dict[str, Callable[[], Figure]] = {}
    if isinstance(found, Probe) and found.curve:
        drawn["passk_guard/alignment_curve"] = lambda: _draw("alignment_curve_figure", found)
    # An alarm between probes rests on the last of them.
    probe = guard.history[-1] if guard.history else None
    due = found.alarm is not None or _turn(found, guard, _FIGURES_EVERY)
    if due and probe is not None and probe.update_alignment is not None:
        drawn["passk_guard/interference"] = lambda: _draw("interference_figure", probe)
        drawn["passk_guard/agreement"] = lambda: _draw("agreement_figure", probe)
    return drawn


def _draw(name: str, probe: Probe) -> Figure:
    from passk_guard.reporting import figures  # matplotlib is an extra

    figure: Figure = getattr(figures, name)(probe)
    return figure


def _record(
    found: Probe | Rescore,
    values: Mapping[str, float],
    conflicts: Conflicts | None,
    rows: Any,
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "step": found.step,
        "look": "probe" if isinstance(found, Probe) else "rescore",
        **{key.removeprefix("passk_guard/"): value for key, value in values.items()},
        "open": list(found.conflicts),
    }
    if found.alarm is not None:
        record["message"] = found.alarm.message
    if conflicts is not None:
        record["conflict"] = {
            "steps": list(conflicts.steps),
            "prompts": [_prompt(prompt, rows) for prompt in conflicts.prompts],
            "pairs": [
                {
                    **vars(pair),
                    "first": _prompt(pair.first, rows),
                    "second": _prompt(pair.second, rows),
                }
                for pair in conflicts.pairs
            ],
        }
    return record


def _prompt(prompt: PromptConflict, rows: Any) -> dict[str, Any]:
    return {**vars(prompt), **({} if rows is None else {"prompt": prompt_text(rows[prompt.row])})}
