"""The three pictures that a page has of one look: who pulls against whom, and to what effect."""

from __future__ import annotations

from passk_guard.reporting.figures import (
    agreement_figure,
    alignment_curve_figure,
    interference_figure,
)
from passk_guard.reporting.snapshot import Snapshot
from passk_guard.reporting.svg import Picture, picture
from passk_guard.statistics.interval import Z95


def probe_pictures(shown: Snapshot) -> dict[str, Picture]:
    """By name: ``interference``, ``agreement``, ``curve``."""
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
