"""lm-evaluation-harness: ``samples_<task>_<time>.jsonl``, as ``--log_samples`` writes it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from passk_guard.counts.counts import Counts, PromptCount, gather
from passk_guard.counts.formats import Choices, Format, Source
from passk_guard.counts.lines import at, read_lines, short
from passk_guard.counts.verdicts import Verdicts, chosen, meant_for, passes_of, right_of, undecided

_NAME = re.compile(r"samples_(?P<task>.+)_(?P<time>\d{4}-\d\d-\d\dT[\d.-]+)\.jsonl$")
_NO_METRIC = ("bypass",)  # of a run that only predicts

Tally = dict[str, tuple[int, int]]


@dataclass
class _Task:
    """What one file of samples has."""

    name: str
    texts: dict[str, str] = field(default_factory=dict)
    tallies: dict[str, dict[str, Tally]] = field(default_factory=dict)  # by metric, by filter
    verdicts: dict[tuple[str, str], Verdicts] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)  # metrics, and why
    asked: set[Any] = field(default_factory=set)
    unjudged: int = 0  # responses to a question, of which a filter left one

    @property
    def metrics(self) -> set[str]:
        return set(self.tallies) | set(self.refused)

    @property
    def filters(self) -> set[str]:
        return {filter for tallies in self.tallies.values() for filter in tallies}


def _recognises(source: Source) -> bool:
    return {"doc_id", "filtered_resps"} <= set(source.first) or bool(
        source.below("samples_*.jsonl")
    )


def _read(source: Source, choices: Choices) -> Counts:
    remarks: list[str] = []
    files = _latest(source, remarks) if source.is_folder else [source.path]
    found: list[PromptCount] = []
    names: list[str] = []
    tasks = {path: _tally(path, choices, remarks) for path in files}
    for path, task in tasks.items():
        wanted = meant_for(choices.metric, task.metrics, [t.metrics for t in tasks.values()])
        metric, by_filter = _metric(task, wanted, path)
        wanted = meant_for(choices.filter, by_filter, [t.filters for t in tasks.values()])
        filter, tally = chosen(wanted, by_filter, "filter", "filters", str(path))
        remarks += task.verdicts[metric, filter].remarks(path.name)
        remarks += _said(task, tally, filter, path)
        names.append(f"{metric}, filter {filter}")
        group = task.name or None
        start = f"{task.name}/" if task.name else ""
        found += [
            PromptCount(start + id, *count, group=group, text=task.texts.get(id))
            for id, count in tally.items()
        ]
    return gather(
        source.name,
        found,
        verifier="lm-evaluation-harness: " + "; ".join(dict.fromkeys(names)),
        settings=_settings(files[0]),
        remarks=remarks,
    )


def _latest(source: Source, remarks: list[str]) -> list[Path]:
    """One file per task: of several runs into one folder, the last."""
    by_task: dict[str, list[tuple[str, Path]]] = {}
    for path in source.below("samples_*.jsonl"):
        if match := _NAME.match(path.name):
            by_task.setdefault(match["task"], []).append((match["time"], path))
    if not by_task:
        raise ValueError(
            f"{source.path} has no file samples_<task>_<time>.jsonl. Run lm_eval with "
            "--log_samples, or name one file."
        )
    folders = {path.parent for runs in by_task.values() for _, path in runs}
    if len(folders) > 1:
        names = ", ".join(sorted(str(folder.relative_to(source.path)) for folder in folders))
        raise ValueError(f"{source.path} has the samples of several models: {names}. Name one.")
    for task, runs in by_task.items():
        if len(runs) > 1:
            remarks.append(
                f"{source.name}: of {len(runs)} runs of {task}, the last is read, of "
                f"{max(runs)[0]}."
            )
    return [max(runs)[1] for runs in by_task.values()]


def _tally(path: Path, choices: Choices, remarks: list[str]) -> _Task:
    """Counts of a file for each of its metrics and filters."""
    match = _NAME.match(path.name)
    task = _Task(match["task"] if match else "")
    for number, line in read_lines(path, remarks):
        where = at(path, number)
        _check(line, where)
        # The number of a question would pair wrongly where a data set was put in another order.
        id, filter = str(line["doc_hash"])[:16], str(line.get("filter", "none"))
        text, responses = _asked(line)
        task.asked.add(line["doc_id"])
        if text is not None:
            task.texts.setdefault(id, text)
        if responses is None:
            task.unjudged = max(task.unjudged, *(len(r) for r in _listed(line.get("resps"))), 0)
        for metric in map(str, line["metrics"]):
            score = line.get(metric)
            judge = task.verdicts.setdefault((metric, filter), Verdicts(choices.threshold))
            count = _count(metric, score, responses, judge, where, task.refused)
            if count is not None:
                tally = task.tallies.setdefault(metric, {}).setdefault(filter, {})
                c, n = tally.get(id, (0, 0))
                tally[id] = c + count[0], n + count[1]
    return task


_SHAPE: dict[str, type | tuple[type, ...]] = {
    "doc_id": (int, str),
    "doc_hash": str,
    "arguments": dict,
    "filtered_resps": list,
    "metrics": list,
}


def _check(line: dict[str, Any], where: str) -> None:
    if "metrics" not in line and "filter" not in line and "doc_hash" in line:
        raise ValueError(
            f"{where} is of lm-evaluation-harness before 0.4.7, which did not write which filter "
            "and which metrics a sample is of. Evaluate again with 0.4.7 or later."
        )
    if missing := [key for key in _SHAPE if key not in line]:
        raise ValueError(
            f"{where} is no sample of lm-evaluation-harness: {', '.join(missing)} missing among "
            f"{sorted(line)}."
        )
    for key, kind in _SHAPE.items():
        if not isinstance(line[key], kind):
            raise ValueError(
                f"{where} has {key}={short(line[key])}, which is not what lm-evaluation-harness "
                "writes."
            )


def _asked(line: dict[str, Any]) -> tuple[str | None, int | None]:
    """The prompt, and how many responses a metric judges together; ``None``: one."""
    first = line["arguments"].get("gen_args_0")
    first = first if isinstance(first, dict) else {}
    text = first.get("arg_0")
    filtered = line["filtered_resps"]
    generated = isinstance(first.get("arg_1"), dict)  # else a continuation to be scored
    several = generated and len(filtered) == 1 and isinstance(filtered[0], list)
    return text if isinstance(text, str) else None, len(filtered[0]) if several else None


def _count(
    metric: str,
    score: Any,
    responses: int | None,
    judge: Verdicts,
    where: str,
    refused: dict[str, str],
) -> tuple[int, int] | None:
    """Right responses and all; ``None`` where the metric does not tell."""
    if metric in _NO_METRIC:
        refused[metric] = "of a run that only predicts"
        return None
    k = passes_of(metric)
    if responses is not None and isinstance(score, list) and len(score) == responses:
        each = [judge(one, where) for one in score]
        return sum(c for c, _ in each), sum(n for _, n in each)
    if isinstance(score, (list, dict, str)):
        refused[metric] = "not one number for each question"
        return None
    if k is not None and k > 1:
        refused[metric] = f"at least one of {k} responses, not how many"
        return None
    if responses is None or responses == 1 or score is None or score != score:  # NaN
        return judge(score, where)
    if k is None:
        refused[metric] = f"one number for {responses} responses"
        return None
    right = right_of(score, responses)  # pass@1 is their share
    if right is None:
        raise ValueError(
            f"{where} has {metric}={short(score)} of {responses} responses, which is no whole "
            "number of right ones."
        )
    return right, responses


def _metric(task: _Task, given: str | None, path: Path) -> tuple[str, dict[str, Tally]]:
    tallies = {m: t for m, t in task.tallies.items() if m not in task.refused}
    if given in task.refused or not tallies:
        advice = (
            "Add pass@1 to the metrics of the task, or a metric with a number for each response."
        )
        raise undecided(path, task.refused, advice)
    return chosen(given, tallies, "metric", "metrics", str(path))


def _said(task: _Task, tally: Tally, filter: str, path: Path) -> Iterator[str]:
    if task.unjudged > 1:
        yield (
            f"{path.name}: of {task.unjudged} responses to a question the filter {filter!r} leaves "
            "one, so n is 1. Where it is a vote, pass@1 is that of the vote."
        )
    if twice := len(task.asked) - len(tally):
        yield (
            f"{path.name}: questions that are the same as another: {twice}; counts are added up."
        )


def _listed(value: Any) -> list[list[Any]]:
    return [one for one in value if isinstance(one, list)] if isinstance(value, list) else []


def _settings(path: Path) -> dict[str, Any]:
    """Model and temperature, where the results lie beside the samples."""
    match = _NAME.match(path.name)
    if match is None:
        return {}
    try:
        results = path.with_name(f"results_{match['time']}.json").read_text(encoding="utf-8")
        found = json.loads(results)
        config = found["configs"][match["task"]]
        generation = config.get("generation_kwargs") or {}
        known = {"model": found.get("model_name"), "temperature": generation.get("temperature")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {name: value for name, value in known.items() if value is not None}


LM_EVAL = Format(
    what="samples of lm-evaluation-harness",
    recognises=_recognises,
    read=_read,
    takes=frozenset({"metric", "filter", "threshold"}),
)
