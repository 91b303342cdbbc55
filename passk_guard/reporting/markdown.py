"""Texts of a conflict for TensorBoard, in Markdown. What prompts hold is shown, never rendered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from passk_guard.prompts.identity import prompt_text
from passk_guard.reporting.conflicts import Conflicts, PairConflict, PromptConflict
from passk_guard.reporting.visible import LONGEST, visible
from passk_guard.statistics.lost_prompts import ChangedPrompts

_MOST_ROWS = 20


def escaped(text: str, longest: int = LONGEST) -> str:
    """:func:`visible` text that means nothing to HTML or Markdown.

    Every ASCII sign that is neither letter, digit nor space becomes a numeric entity: no tag, no
    link, no table cell can begin.

    >>> escaped("<b>|")
    '&#60;b&#62;&#124;'
    """
    return "".join(
        f"&#{ord(char)};" if char.isascii() and not char.isalnum() and char != " " else char
        for char in visible(text, longest)
    )


def alarm_card(message: str) -> str:
    """The alarm as a paragraph; ``message`` may quote prompts, and is escaped whole."""
    return f"**pass@1 is at risk**\n\n{escaped(message, 5000)}"


def conflict_table(found: Conflicts, rows: Sequence[Mapping[str, Any]] | None) -> str:
    """Two tables: pairs that interfere most, and prompts that lower pass@1.

    Args:
        found: what to show.
        rows: the held-out pool, to show prompts by their text; ``None``: by row id only.
    """
    steps = ", ".join(map(str, found.steps))
    pairs = _table(
        ["rows", "pass rate", "weight", "agreement", "cosine", "share"],
        [_pair_cells(pair, rows) for pair in found.pairs],
        rows is not None,
    )
    prompts = _table(
        ["row", "pass rate", "weight", "agreement", "share"],
        [_prompt_cells(prompt, rows) for prompt in found.prompts],
        rows is not None,
    )
    return (
        f"Probes at step {steps}. *Share*: of all that moves pass@1 in a probe, with its sign.\n\n"
        f"**Prompts that pull against each other**\n\n{pairs}\n\n"
        f"**Prompts on which the update lowers pass@1**\n\n{prompts}"
    )


def turnover_text(found: ChangedPrompts, rows: Sequence[Mapping[str, Any]] | None) -> str:
    """Prompts surely lost and surely won, the surest first.

    Args:
        found: what to show.
        rows: the held-out pool, to show prompts by their text; ``None``: by row id only.
    """

    def named(ids: Sequence[int]) -> str:
        if rows is None or not ids:
            return ", ".join(map(str, ids)) or "none"
        cells = [[str(i), escaped(prompt_text(rows[i]))] for i in ids[:_MOST_ROWS]]
        more = len(ids) - _MOST_ROWS
        return _table(["row"], cells, True) + (f"\n\nand {more} more" if more > 0 else "")

    return (
        f"Of {found.nameable} prompts with rollouts enough, {len(found.lost)} have surely lost "
        f"more than {100 * found.margin:g} points of pass@1, and {len(found.won)} have won as "
        f"much. Of each, {100 * found.false_discovery:g} % may be wrong on average.\n\n"
        f"**Prompts lost**\n\n{named(found.lost)}\n\n**Prompts won**\n\n{named(found.won)}"
    )


def _pair_cells(pair: PairConflict, rows: Sequence[Mapping[str, Any]] | None) -> list[str]:
    both = (pair.first, pair.second)
    return [
        " / ".join(str(p.row) for p in both),
        " / ".join(f"{p.pass_rate:.2f}" for p in both),
        " / ".join(f"{p.weight:.2f}" for p in both),
        " / ".join(f"{p.agreement:+.2g}" for p in both),
        f"{pair.cosine:+.2f}",
        f"{100 * pair.share:+.2f} %",
        *([] if rows is None else [" / ".join(escaped(prompt_text(rows[p.row])) for p in both)]),
    ]


def _prompt_cells(prompt: PromptConflict, rows: Sequence[Mapping[str, Any]] | None) -> list[str]:
    return [
        str(prompt.row),
        f"{prompt.pass_rate:.2f}",
        f"{prompt.weight:.2f}",
        f"{prompt.agreement:+.2g}",
        f"{100 * prompt.share:+.1f} %",
        *([] if rows is None else [escaped(prompt_text(rows[prompt.row]))]),
    ]


def _table(head: list[str], cells: list[list[str]], with_text: bool) -> str:
    if not cells:
        return "none"
    head = [*head, *(["prompt"] if with_text else [])]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
