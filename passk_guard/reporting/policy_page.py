"""A reading of a policy as one HTML page, made from its record alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from passk_guard.reporting.policy_figures import pass_at_figure
from passk_guard.reporting.probe_pictures import probe_pictures
from passk_guard.reporting.rendering import quoted, render
from passk_guard.reporting.snapshot import Snapshot
from passk_guard.reporting.svg import picture
from passk_guard.version import __version__


def policy_page(record: Mapping[str, Any]) -> str:
    """The page.

    Args:
        record: of a :class:`~passk_guard.PolicyProbe`, or such as its journal keeps.
    """
    shown = Snapshot.read(None, record["k"], record["picture"])
    pictured = len(shown.rows) > 1
    conflict = record["conflict"]
    return render(
        "policy_page.html.j2",
        quoted(conflict or {"prompts": [], "pairs": []}),
        found=record,
        at={one["k"]: one for one in record["pass_at"]},
        levels=picture(
            lambda: pass_at_figure(record),
            "Chart: pass@k over k. The table of all k has its figures.",
        ),
        shown=shown if pictured else None,
        pictures=probe_pictures(shown) if pictured else None,
        version=__version__,
    )
