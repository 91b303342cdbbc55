"""The journal of ``passk-guard probe``: a line with the settings, then a line per prompt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from passk_guard.counts.counts import Counts, PromptCount, gather
from passk_guard.counts.formats import Choices, Format
from passk_guard.counts.lines import read_lines
from passk_guard.counts.plain import prompt_counts
from passk_guard.counts.source import Source

__all__ = ["PROBE"]

# The others say which probe it is, and are to differ: weights, seed and the like.
_SAMPLING = ("temperature", "max_completion_length", "success_threshold")


def _recognises(source: Source) -> bool:
    return source.first.get("passk_guard") == "probe"


def _read(source: Source, choices: Choices) -> Counts:
    if not _recognises(source):
        raise ValueError(
            f"{source.path} is no journal of `passk-guard probe`: that begins with a line "
            '{"passk_guard": "probe", ...}.'
        )
    remarks: list[str] = []
    given = source.first.get("settings")
    settings: dict[str, Any] = given if isinstance(given, dict) else {}

    def prompts() -> Iterator[PromptCount]:
        lines = read_lines(source.path, remarks)
        yield from prompt_counts(
            ((number, line) for number, line in lines if line.get("look") == "prompt"), source.path
        )

    verifier = settings.get("verifier")
    return gather(
        source.name,
        prompts(),
        verifier=None if verifier is None else str(verifier),
        settings={key: settings[key] for key in _SAMPLING if key in settings},
        remarks=remarks,
    )


PROBE = Format(what="the journal of `passk-guard probe`", recognises=_recognises, read=_read)
