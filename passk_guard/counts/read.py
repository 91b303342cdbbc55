"""Counts from a file or folder, whatever wrote it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from passk_guard.counts.counts import Counts
from passk_guard.counts.formats import FORMATS, Choices, Format, Source, register_format
from passk_guard.counts.inspect_ai import INSPECT_AI
from passk_guard.counts.lighteval import LIGHTEVAL
from passk_guard.counts.lines import listed, short
from passk_guard.counts.lm_eval import LM_EVAL
from passk_guard.counts.plain import PLAIN, PROBE
from passk_guard.counts.verl import VERL

register_format("counts", PLAIN)
register_format("probe", PROBE)
register_format("lm_eval", LM_EVAL)
register_format("inspect_ai", INSPECT_AI)
register_format("lighteval", LIGHTEVAL)
register_format("verl", VERL)


def read_counts(
    path: str | Path,
    *,
    format: str | None = None,
    metric: str | None = None,
    filter: str | None = None,
    threshold: float | None = None,
    name: str | None = None,
) -> Counts:
    """Read how many rollouts of each prompt were right.

    What wrote the file is recognised by its content. Counts of one prompt id are added up.

    Args:
        path: of a file; for harnesses that write several, of their folder.
        format: one of the names in ``FORMATS``; ``None`` recognises it.
        metric: which score decides, where a file has several.
        filter: which of lm-evaluation-harness' filters, where a file has several.
        threshold: score from which a rollout is right. ``None``: 0.5; for inspect_ai 1, as its
            own ``pass_at`` has it.
        name: what the counts are called in sentences and tables; ``None``: the file's name.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: the format is not known, the file is damaged or holds no verdicts, or the user
            has to choose among several scores. The message names the file, the line and the mend.
        ModuleNotFoundError: a format needs a package that is not installed.

    >>> from tempfile import TemporaryDirectory
    >>> lines = [
    ...     '{"prompt_id": "a", "correct": 3, "n": 8}',
    ...     '{"prompt_id": "b", "correct": true}',
    ...     '{"prompt_id": "b", "correct": false}',
    ... ]
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "before.jsonl"
    ...     _ = path.write_text("\\n".join(lines))
    ...     counts = read_counts(path)
    >>> counts.ids, counts.correct.tolist(), counts.n.tolist()
    (('a', 'b'), [3, 1], [8, 2])
    """
    if threshold is not None and (
        isinstance(threshold, bool)
        or not isinstance(threshold, (int, float))
        or not math.isfinite(threshold)
    ):
        raise ValueError(
            "threshold must be a finite number, the score from which a rollout is right, got "
            f"{threshold!r}."
        )
    source = Source(path)
    choices = Choices(metric, filter, threshold)
    chosen = _name_of(source, format)
    for setting in ("metric", "filter", "threshold"):
        if getattr(choices, setting) is not None and setting not in FORMATS[chosen].takes:
            raise ValueError(
                f"{setting}={getattr(choices, setting)!r} means nothing for {source.path}, which "
                f"is read as format={chosen!r}. Leave it out."
            )
    counts = FORMATS[chosen].read(source, choices)
    return counts if name is None else replace(counts, name=name)


def format_of(path: str | Path) -> str | None:
    """The format that a file or folder is recognised as; ``None`` where it is of none.

    >>> format_of("nowhere") is None
    True
    """
    if not Path(path).exists():
        return None
    source = Source(path)
    return next((name for name, known in FORMATS.items() if known.recognises(source)), None)


def _name_of(source: Source, given: str | None) -> str:
    """The name of the source's format."""
    if given is not None:
        if given not in FORMATS:
            raise ValueError(f"format={given!r} is not known. Choose one of: {', '.join(FORMATS)}.")
        return given
    if not source.is_folder and not source.head:
        raise ValueError(f"{source.path} is empty. Give a file of counts.")
    if (found := format_of(source.path)) is not None:
        return found
    raise ValueError(_unknown(source, list(FORMATS.values())))


def _unknown(source: Source, known: list[Format]) -> str:
    """What to say of something that no format recognises."""
    if {"look", "step"} <= set(source.first):
        return (
            f"{source.path} is the journal of a guarded run: it tells of the whole pool at each "
            "look, not how often each prompt was solved. Probe the run's checkpoints instead: "
            "passk-guard probe CHECKPOINT --prompts held_out.jsonl; for the run itself, "
            "passk-guard report."
        )
    if source.is_folder:
        seen = sorted(p.name for p in source.path.iterdir())
        shown = f"holds {listed(seen)}" if seen else "is empty"
    elif source.first:
        shown = f"has a first line with the keys {listed(sorted(source.first), 12)}"
    else:
        shown = f"begins with {short(source.head[:40].decode('utf-8', 'replace'))}"
        if b'"results"' in source.head:
            shown += (
                ", which looks like the results of a harness: means, without the single samples "
                "(lm_eval writes these with --log_samples, lighteval with --save-details)"
            )
    formats = "; ".join(format.what for format in known)
    return (
        f"{source.path} {shown}, and is of no format that is known: {formats}. Turn it into the "
        'first one, a line per prompt such as {"prompt_id": "a", "correct": 3, "n": 8}, or force '
        "one with format=."
    )
