"""What `probe` says of each start, and what smaller probes would have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from field.sizes import Size


def starts_table(records: Sequence[Mapping[str, Any]], size: Size) -> str:
    """Markdown, a row for each task, seeds side by side."""
    said = [
        "| task | verdict of `probe`, z | prompts that would settle it | prompts without signal "
        "| z of so many prompts by themselves |",
        "|---|---|---|---|---|",
    ]
    for name in size.tasks:
        mine = sorted(
            (r for r in records if (r["task"], r["arm"]) == (name, "start")),
            key=lambda r: r["seed"],
        )
        if mine:
            said.append(_row(name, mine))
    return "\n".join(said)


def _row(name: str, starts: Sequence[Mapping[str, Any]]) -> str:
    probes = [start["probe"] for start in starts]
    verdicts = "; ".join(
        one["verdict"] + (f", {one['test']['z']:+.1f}" if one["test"] else "") for one in probes
    )
    needed = ", ".join(str(one["needed"] or "-") for one in probes)
    silent = ", ".join(f"{100 * one['no_signal']:.0f} %" for one in probes)
    ranges = []
    for prompts in ("64", "128", "256"):
        z = [value for start in starts for value in start["z_by_prompts"].get(prompts, [])]
        if z:
            ranges.append(f"{prompts}: {min(z):+.1f} to {max(z):+.1f}")
    return f"| {name} | {verdicts} | {needed} | {silent} | {'; '.join(ranges)} |"
