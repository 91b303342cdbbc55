"""A run as one HTML page that needs nothing else: no network, no script to be readable."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined

from passk_guard.reporting import course
from passk_guard.reporting.figures import (
    agreement_figure,
    alignment_curve_figure,
    interference_figure,
)
from passk_guard.reporting.markdown import visible
from passk_guard.reporting.read_run import Run
from passk_guard.reporting.snapshot import Snapshot
from passk_guard.reporting.summary import summary
from passk_guard.reporting.svg import Picture, picture
from passk_guard.statistics.interval import Z95

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["page"]

_LONGEST = 400  # characters of a prompt


def page(run: Run) -> str:
    """The page. Whatever a prompt, a verifier's error or a file name holds is shown as text.

    Jinja escapes every value, and characters that HTML has no place for are spelt out. A content
    security policy forbids the page to load anything, and to run any script but its own, which
    sorts tables and reads the heat map out.
    """
    source = files("passk_guard.reporting")
    script = (source / "page.js").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True,
        finalize=_spelt,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": _number,
        "signed": partial(_number, sign="+"),
        "visible": lambda text: visible(str(text), _LONGEST),
    }
    shown = _snapshots(run)
    template = environment.from_string((source / "page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        run=run,
        found=summary(run),
        name=run.path.resolve().parent.name,
        courses=_courses(run),
        probes=[{"shown": one, "pictures": _pictures(one)} for one in shown],
        texts=_texts(run),
        style=(source / "page.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _spelt(value: Any) -> Any:
    return visible(value, len(value)) if type(value) is str else value  # not Markup


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


def _pictures(shown: Snapshot) -> dict[str, Picture]:
    lowers = int((shown.agreement < 0).sum())
    against = [f"{k:.0f}" for k, z, _ in shown.curve if z < -Z95]
    opposed = f"for k = {', '.join(against)}" if against else "for no k"
    return {
        "interference": picture(
            lambda: interference_figure(shown),
            f"Heat map: cosines of the gradients of {len(shown.rows)} prompts, hard to easy. "
            "The table of pairs names the most opposed.",
        ),
        "agreement": picture(
            lambda: agreement_figure(shown),
            f"Chart: agreement with pass@1 and weight, over pass rate. {lowers} of "
            f"{len(shown.rows)} prompts lie below zero.",
        ),
        "curve": picture(
            lambda: alignment_curve_figure(shown),
            f"Chart: would a pass@k step raise pass@1? It would surely lower it {opposed}.",
        ),
    }


def _texts(run: Run) -> dict[int, str]:
    """Prompts by row, as far as the run quotes them."""
    conflict = run.conflict or {"prompts": [], "pairs": []}
    named = [
        *conflict["prompts"],
        *(p[end] for p in conflict["pairs"] for end in ("first", "second")),
    ]
    return {one["row"]: visible(one["prompt"], _LONGEST) for one in named if "prompt" in one}


def _number(value: Any, digits: int = 3, sign: str = "") -> str:
    if value is None:
        return "–"
    return format(value, f"{sign}.{digits}f").replace("-", "−")
