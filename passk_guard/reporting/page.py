"""A run as one HTML page that needs nothing else: no network, no script to be readable."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from passk_guard.reporting import course
from passk_guard.reporting.probe_pictures import probe_pictures
from passk_guard.reporting.read_run import Run
from passk_guard.reporting.rendering import quoted, render
from passk_guard.reporting.snapshot import Snapshot
from passk_guard.reporting.summary import summary
from passk_guard.reporting.svg import Picture, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST = 400  # characters of a prompt


def page(run: Run) -> str:
    """The page; see :mod:`passk_guard.reporting.rendering`."""
    shown = _snapshots(run)
    return render(
        "page.html.j2",
        _texts(run),
        run=run,
        found=summary(run),
        name=run.path.resolve().parent.name,
        courses=_courses(run),
        probes=[{"shown": one, "pictures": probe_pictures(one)} for one in shown],
    )


def _snapshots(run: Run) -> list[Snapshot]:
    """At the last alarm, where there was one, and the last that there is."""
    pictures = [one for one in run.pictures if len(one.rows) > 1]
    alarm = run.alarms[-1]["step"] if run.alarms else None
    at_alarm = [one for one in pictures if alarm is not None and one.step <= alarm][-1:]
    return [one for one in at_alarm if one is not pictures[-1]] + pictures[-1:]


def _courses(run: Run) -> list[Picture]:
    looks = run.looks
    if not looks:
        return []
    config = run.start.get("config", {})
    k, tolerance = config.get("k"), config.get("pass1_tolerance")
    floor = tolerance if config.get("floor") == "start" else None
    drawn: list[tuple[Callable[[], Figure], str]] = [
        (lambda: course.levels_figure(looks, k), "pass@1 and pass@k over the run"),
        (lambda: course.change_figure(looks, floor), "change of pass@1 over the run"),
    ]
    if any(look.get("cosine_low") is not None for look in looks):
        drawn.append((lambda: course.cosine_figure(looks), "cosine of the update over the run"))
    if any(look.get("pass1_weight") or look.get("k", k) != k for look in looks):
        drawn.append((lambda: course.remedy_figure(looks), "λ and k of the objective"))
    return [
        picture(draw, f"Chart: {alt}. The table of looks has its figures.") for draw, alt in drawn
    ]


def _texts(run: Run) -> dict[int, str]:
    """Prompts by row, as far as the run quotes them."""
    return quoted(run.conflict or {"prompts": [], "pairs": []})
