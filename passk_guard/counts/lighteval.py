"""lighteval: ``details_<task>_<time>.parquet``, as ``--save-details`` writes it. Needs pyarrow."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from passk_guard.counts.counts import Counts, PromptCount, gather
from passk_guard.counts.formats import Choices, Format, Source
from passk_guard.counts.lines import listed, short
from passk_guard.counts.verdicts import Verdicts, chosen, meant_for, right_of, undecided

_PARQUET = b"PAR1"
_COLUMNS = ("doc", "metric", "model_response")
_ADVICE = (
    "Add pass@k with k=1, or avg@n, over the same n to the metrics of the task; "
    "--load-responses-from-details-date-id then judges the responses that are there."
)
_ROWS = 256  # read at once: rows hold whole responses


def _recognises(source: Source) -> bool:
    return source.head.startswith(_PARQUET) or bool(source.below("details_*.parquet"))


@dataclass
class _Task:
    """What one file of details has."""

    path: Path
    prompts: list[tuple[str, str, str | None]] = field(default_factory=list)  # id, task, text
    tallies: dict[str, list[tuple[int, int]]] = field(default_factory=dict)  # by metric
    verdicts: dict[str, Verdicts] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)  # metrics, and why

    @property
    def metrics(self) -> set[str]:
        return set(self.tallies) | set(self.refused)


def _read(source: Source, choices: Choices) -> Counts:
    files = source.below("details_*.parquet") if source.is_folder else [source.path]
    if not files:
        raise ValueError(
            f"{source.path} has no file details_<task>_<time>.parquet. Run lighteval with "
            "--save-details, or name one file."
        )
    folders = {path.parent for path in files}
    if len(folders) > 1:
        names = listed(sorted(str(folder.relative_to(source.path)) for folder in folders))
        raise ValueError(f"{source.path} has details of several runs: {names}. Name one.")
    tasks = [_tally(path, choices.threshold) for path in files]
    found: list[PromptCount] = []
    remarks: list[str] = []
    metrics: list[str] = []
    for task in tasks:
        wanted = meant_for(choices.metric, task.metrics, [other.metrics for other in tasks])
        whole = {m: t for m, t in task.tallies.items() if m not in task.refused}
        if wanted in task.refused or not whole:
            raise undecided(task.path, task.refused, _ADVICE)
        metric, tally = chosen(wanted, whole, "metric", "metrics", str(task.path))
        metrics.append(metric.split(":")[0])
        remarks += task.verdicts[metric].remarks(task.path.name)
        if twice := len(task.prompts) - len(set(task.prompts)):
            remarks.append(
                f"{task.path.name}: questions that are the same as another: {twice}; counts are "
                "added up."
            )
        for (id, name, text), count in zip(task.prompts, tally, strict=True):
            found.append(PromptCount(f"{name}/{id}", *count, group=name or None, text=text))
    return gather(
        source.name,
        found,
        verifier="lighteval: " + "; ".join(dict.fromkeys(metrics)),
        remarks=remarks,
    )


def _tally(path: Path, threshold: float | None) -> _Task:
    """Counts of a file for each of its metrics."""
    task = _Task(path)
    for number, row in enumerate(_rows(path), start=1):
        where = f"{path}, row {number},"
        doc, scores, said = (row.get(name) for name in _COLUMNS)
        if not isinstance(doc, dict) or not isinstance(scores, dict) or not isinstance(said, dict):
            raise ValueError(f"{where} is not what lighteval writes now: {', '.join(_COLUMNS)}.")
        task.prompts.append((_id(doc), str(doc.get("task_name") or ""), doc.get("query")))
        responses = len(said.get("text") or ())
        for metric, score in scores.items():
            judge = task.verdicts.setdefault(metric, Verdicts(threshold))
            count = _count(metric, score, responses, judge, where, task.refused)
            if count is not None:
                task.tallies.setdefault(metric, []).append(count)
    return task


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """Rows of a file, as dicts."""
    try:
        parquet = import_module("pyarrow.parquet")
        broken = import_module("pyarrow").ArrowException
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{path} is a parquet file, as lighteval writes them, and reading it needs pyarrow: "
            "pip install pyarrow."
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if missing := sorted(set(_COLUMNS) - set(names)):
                raise ValueError(
                    f"{path} is no file of details as lighteval writes them now: "
                    f"{', '.join(missing)} missing among its columns {sorted(names)}."
                )
            columns = ["doc.query", "doc.choices", "doc.gold_index", "doc.task_name", "metric"]
            for batch in file.iter_batches(_ROWS, columns=[*columns, "model_response.text"]):
                yield from batch.to_pylist()
    except (broken, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no whole parquet file: {error}. Copy it again.") from None


def _count(
    metric: str,
    score: Any,
    responses: int,
    judge: Verdicts,
    where: str,
    refused: dict[str, str],
) -> tuple[int, int] | None:
    """Right responses and all; ``None`` where the metric does not tell."""
    name, _, settings = metric.partition(":")
    given = dict(re.findall(r"(\w+)=(\d+)", settings))
    n = min(int(given.get("n", responses)), responses)
    share = ("pass@k" in name and given.get("k") == "1") or "avg@n" in name
    if share and "n" in given and int(given["n"]) != n:
        refused[metric] = f"of {given['n']} responses, of which {responses} are there"
        return None
    if isinstance(score, (list, dict, str)):
        refused[metric] = "not one number for each question"
        return None
    if share and n == 1:
        return judge(score, where)
    if share and score is not None and score == score:  # no NaN
        right = right_of(score, n)
        if right is None:
            refused[metric] = f"{short(score)} of {n} responses, no whole number of right ones"
            return None
        return right, n
    if "pass@" in name and not share:
        refused[metric] = "at least one of k responses, not how many"
        return None
    if responses > 1:
        refused[metric] = f"one number for {responses} responses"
        return None
    return judge(score, where)


def _id(doc: Mapping[str, Any]) -> str:
    """By content: the number of a question depends on how many were asked."""
    what = [doc.get("query"), doc.get("choices"), doc.get("gold_index")]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


LIGHTEVAL = Format(
    what="details of lighteval (.parquet)",
    recognises=_recognises,
    read=_read,
    takes=frozenset({"metric", "threshold"}),
)
