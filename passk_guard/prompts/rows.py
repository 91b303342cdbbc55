"""The prompts that users bring, as rows: read, and checked one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset

_KINDS = (
    "Pass a list of strings, chat messages or dict rows, a datasets.Dataset, a DataFrame, or the "
    "path of a .jsonl file."
)


def rows_from(
    prompts: Any, name: str = "prompts", stand_in: Any = None
) -> Sequence[Mapping[str, Any]]:
    """Turn what users pass as ``prompts`` into rows with a ``prompt`` column.

    Args:
        prompts: strings, chat-message lists, dict rows, a ``datasets.Dataset`` or another dataset
            with rows by number, a DataFrame of pandas or polars, a table of pyarrow, or the path
            of a ``.jsonl`` file with one row per line.
        name: what the user knows it by, for messages.
        stand_in: the prompt of rows that have none; ``None`` where each needs one.

    Raises:
        ValueError: there are none, a file cannot be read, they cannot be drawn by number, or a row
            has no usable prompt.

    >>> rows_from(["1 + 1 ="])
    [{'prompt': '1 + 1 ='}]
    """
    lines: list[int] | None = None
    path = None
    if isinstance(prompts, (str, Path)) and str(prompts).endswith(".jsonl"):
        path = Path(prompts)
        prompts, lines = read_lines(path, name)
    found = _table_rows(prompts)
    _check_kind(found, name)
    columns = getattr(found, "column_names", None)
    if columns is not None and "prompt" not in columns and stand_in is not None:
        found, columns = list(found), None
    if columns is not None and "prompt" not in columns:
        raise ValueError(
            f"{name} has no 'prompt' column, it has {sorted(columns)}. Rename the column that "
            "holds the prompt."
        )
    if len(found) == 0:
        kind = "training" if name == "anchor_prompts" else "held-out"
        raise ValueError(f"{name} is empty. Pass {kind} prompts, best 512 or more.")
    rows: Sequence[Mapping[str, Any]] = found
    if columns is None:
        each = found if hasattr(found, "__iter__") else (found[i] for i in range(len(found)))
        rows = [row if isinstance(row, Mapping) else {"prompt": row} for row in each]
    if columns is None and stand_in is not None:
        rows = [row if "prompt" in row else {"prompt": stand_in, **row} for row in rows]
    first = rows[0]
    for i, row in enumerate(rows):
        where = f"{name}[{i}]" if lines is None else f"{path}, line {lines[i]},"
        _check_prompt(row, where)
        _check_columns(row, first, where)
    return rows


def check_texts(
    rows: Sequence[Mapping[str, Any]],
    tokenizer: Any,
    name: str = "prompts",
    *,
    chat_template: str | None = None,
    tools: bool = False,
) -> None:
    """Refuse what a language model's tokenizer cannot turn into tokens, before training.

    Args:
        rows: with a prompt each.
        tokenizer: with a chat template where prompts are chats.
        name: what the user knows the rows by, for messages.
        chat_template: used instead of the tokenizer's own.
        tools: whether tools, environments and messages of several parts can be sampled.

    Raises:
        ValueError: text and chats are mixed; text has no tokens; a message has no role or content;
            there is no chat template; there are tools or parts where ``tools`` is not set.
    """
    if not tools and (extra := {"tools", "environment"} & set(rows[0])):
        raise ValueError(
            f"{name} has the column {sorted(extra)[0]!r}, but HFPolicy takes text, one answer per "
            "prompt. Use passk_guard.integrations.trl, which generates through the trainer, or a "
            "policy of your own: policy=."
        )
    is_chat = not isinstance(rows[0]["prompt"], str)
    for i, row in enumerate(rows):
        prompt, where = row["prompt"], f"{name}[{i}]"
        if isinstance(prompt, str) == is_chat:
            kinds = ("a chat", "plain text") if is_chat else ("plain text", "a chat")
            raise ValueError(
                f"{name} mixes chats and plain text: {name}[0] is {kinds[0]}, {where} {kinds[1]}. "
                "Make all of them chats: [{'role': 'user', 'content': text}]."
            )
        if is_chat:
            _check_chat(prompt, where, tools)
        elif not prompt.strip() and not tokenizer(prompt)["input_ids"]:
            raise ValueError(f"{where} is {prompt!r}, which has no tokens. Fix or drop that row.")
    if not is_chat:
        return
    if chat_template is None and getattr(tokenizer, "chat_template", None) is None:
        raise ValueError(
            f"{name} holds chats, but the tokenizer has no chat template. Use an instruction-tuned "
            "model's tokenizer, set tokenizer.chat_template, or pass the prompts as text."
        )


def _table_rows(prompts: Any) -> Any:
    """Rows of a DataFrame or table; anything else as it came."""
    if hasattr(prompts, "columns") and hasattr(prompts, "to_dict"):  # pandas
        found = prompts.to_dict("records")
    elif hasattr(prompts, "to_dicts"):  # polars
        found = prompts.to_dicts()
    elif hasattr(prompts, "to_pylist"):  # pyarrow
        found = prompts.to_pylist()
    else:
        return prompts
    # A parquet file's lists come as arrays.
    return [
        {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in row.items()}
        if isinstance(row, Mapping)
        else row
        for row in found
    ]


def read_lines(path: Path, name: str) -> tuple[list[Any], list[int]]:
    """Rows of a ``.jsonl`` file, and the lines that they stand on.

    Args:
        path: of the file.
        name: of the argument that names it, for messages.

    Raises:
        ValueError: it cannot be read, is empty, or a line of it is no row.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{name}={str(path)!r} cannot be read: {error}.") from None
    rows, numbers = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number}, is not JSON: {error.msg} at column {error.colno}. Each "
                'line is one row, such as {"prompt": "1 + 1 =", "answer": "2"}.'
            ) from None
        if not isinstance(row, (dict, str, list)):
            raise ValueError(
                f"{path}, line {number}, holds {_short(row)}, which is not a row. Each line is an "
                'object such as {"prompt": "1 + 1 =", "answer": "2"}.'
            )
        rows.append(row)
        numbers.append(number)
    if not rows:
        raise ValueError(f"{name}={str(path)!r} is empty: the file has no rows.")
    return rows, numbers


def _check_kind(prompts: Any, name: str) -> None:
    """Rows must be countable, and found by index."""
    got = type(prompts).__name__
    argument = name if name.isidentifier() else "prompts"
    wanted = f"{name} must be a list or a map-style dataset, got"
    if isinstance(prompts, Mapping) and "prompt" in prompts:
        raise ValueError(
            f"{wanted} a {got} of columns. Pass rows: datasets.Dataset.from_dict({argument})."
        )
    if isinstance(prompts, Mapping):
        sets = ", ".join(repr(key) for key in prompts) or "none"
        raise ValueError(f"{wanted} a {got} of several: {sets}. Pass one of them as {argument}=.")
    if isinstance(prompts, IterableDataset) or (
        hasattr(prompts, "__iter__") and not hasattr(prompts, "__len__")
    ):
        raise ValueError(
            f"{wanted} {got}, which streams its rows, and probes need rows by index. Take some "
            f"into a list, best 512 or more: {argument}=list(itertools.islice(dataset, 2048))."
        )
    if isinstance(prompts, Path):
        raise ValueError(
            f"{name}={str(prompts)!r} cannot be read: a file of prompts ends in .jsonl and has a "
            'row per line, such as {"prompt": "1 + 1 =", "answer": "2"}.'
        )
    if isinstance(prompts, str) or not hasattr(prompts, "__getitem__"):
        shown = f" {_short(prompts)}" if isinstance(prompts, str) else ""
        raise ValueError(f"{wanted} {got}{shown}. {_KINDS}")


def _check_prompt(row: Mapping[str, Any], where: str) -> None:
    if "prompt" not in row:
        chat = " It is a message: a chat is a list of them." if "role" in row else ""
        raise ValueError(
            f"{where} has no 'prompt' key, it has {sorted(map(str, row))}. "
            f"Each row needs its prompt under 'prompt'.{chat}"
        )
    if odd := [key for key in row if not isinstance(key, str)]:
        raise ValueError(f"{where} has the column {odd[0]!r}. Column names must be strings.")
    prompt = row["prompt"]
    if not isinstance(prompt, (str, list)) or not prompt:
        raise ValueError(
            f"{where} holds {_short(prompt)} as prompt. "
            "A prompt is a non-empty string or a list of chat messages. Fix or drop that row."
        )


def _check_columns(row: Mapping[str, Any], first: Mapping[str, Any], where: str) -> None:
    if missing := row.keys() ^ first.keys():
        raise ValueError(
            f"{where} and the first row do not have the same columns: {sorted(map(str, missing))} "
            "is in one of them only. Verifiers get whole columns: give every row a value, or None."
        )


def _check_chat(prompt: list[Any], where: str, tools: bool) -> None:
    for message in prompt:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ValueError(
                f"{where} holds {_short(message)}, which is not a chat message. A message is "
                "{'role': 'user', 'content': 'text'}."
            )
        content = message.get("content")
        if content is None and not message.get("tool_calls"):
            raise ValueError(
                f"{where} has a message of {message['role']!r} without content. A message is "
                "{'role': 'user', 'content': 'text'}."
            )
        if not tools and not isinstance(content, str):
            raise ValueError(
                f"{where} has a message with tools, images or several parts, but HFPolicy takes "
                "text, one answer per prompt. Use passk_guard.integrations.trl, which generates "
                "through the trainer, or a policy of your own: policy=."
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
