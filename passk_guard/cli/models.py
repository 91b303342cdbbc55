"""A model that a command line names, as a policy."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from passk_guard.errors import reason_of
from passk_guard.prompts.rows import check_texts, read_lines, rows_from
from passk_guard.rollouts.hf_policy import HFPolicy

# Names on the hub have dots as well: Qwen2.5-0.5B.
_OF_FILES = (".jsonl", ".json", ".csv", ".eval", ".parquet", ".gz", ".zst", ".txt", ".html")
_DTYPES = ("auto", "float32", "bfloat16", "float16")


def add_model_options(parser: argparse.ArgumentParser, *, needed: bool) -> None:
    """What says how a model is sampled; the same words for every command.

    Args:
        parser: of the command.
        needed: whether there is always a model.
    """
    group = parser.add_argument_group("prompts and verifier")
    group.add_argument(
        "--prompts",
        type=Path,
        required=needed,
        metavar="FILE",
        help="held-out prompts, JSONL with a row per line: prompt (text or chat messages) and "
        "whatever columns the verifier needs",
    )
    group.add_argument("--prompt-column", metavar="NAME", help="the column of the prompt")
    group.add_argument(
        "--chat", action="store_true", help="send text prompts as a user's message of a chat"
    )
    group.add_argument(
        "--chat-template-kwargs",
        type=_by_name,
        metavar="JSON",
        help="what the chat template takes, such as '{\"enable_thinking\": false}'",
    )
    group.add_argument(
        "--verifier",
        required=needed,
        metavar="NAME",
        help="what decides that an answer is right: my_module:verify or file.py:verify, a function "
        "f(prompts, completions, **columns) -> scores; or math: math-verify on the column answer",
    )
    group.add_argument("--success-threshold", type=float, default=0.5, metavar="SCORE")
    group.add_argument("--group-by", metavar="COLUMN", help="tell each group's figures, too")
    group = parser.add_argument_group("model")
    if needed:  # of two models each may be an adapter's folder, which names its model
        group.add_argument("--adapter", metavar="FOLDER", help="a PEFT adapter on top of the model")
    group.add_argument("--device", help="such as cuda, cuda:1 or cpu; by default a GPU if any")
    group.add_argument(
        "--dtype", choices=_DTYPES, help="of the weights; by default as saved, float32 on a CPU"
    )
    group.add_argument("--trust-remote-code", action="store_true", help="of the model's repository")
    group = parser.add_argument_group("sampling")
    group.add_argument("--temperature", type=float, default=1.0)
    group.add_argument("--max-completion-length", type=int, metavar="TOKENS")
    group.add_argument(
        "--rollouts-at-once", type=int, default=64, metavar="N", help="batch of generation"
    )
    group.add_argument("--seed", type=int, default=0)


def is_model(name: str) -> bool:
    """Whether it names a model: a folder of one, or nothing on this disk, so a hub name."""
    path = Path(name)
    if path.is_dir():
        return (path / "config.json").is_file() or (path / "adapter_config.json").is_file()
    if path.exists() or path.suffix.lower() in _OF_FILES:
        return False
    return name.count("/") <= 1 and not name.startswith((".", "/", "~"))


def load_policy(
    name: str,
    given: argparse.Namespace,
    rows: Sequence[Mapping[str, Any]],
    adapter: str | None = None,
) -> HFPolicy:
    """A causal language model with its tokenizer, in eval mode; a folder may be an adapter's.

    Args:
        name: on the hub, or a folder.
        given: the options.
        rows: held-out prompts, which its tokenizer must be able to read.
        adapter: a folder of PEFT's.

    Raises:
        ValueError: it cannot be loaded, or cannot read a row.
    """
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError:
        raise ValueError(
            "a model needs transformers: pip install 'passk-guard[transformers]'."
        ) from None
    base, adapter = _base_of(name, adapter)
    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = given.dtype or ("float32" if device == "cpu" else "auto")
    try:
        code = given.trust_remote_code
        model = AutoModelForCausalLM.from_pretrained(
            base,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            trust_remote_code=code,
        )
        tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=code)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{base} cannot be loaded: {_first_sentence(error)} Give a folder with config.json, "
            "weights and tokenizer, or a name on the Hugging Face hub."
        ) from error
    check_texts(rows, tokenizer, "--prompts")
    if adapter is not None:
        model = _with_adapter(model, adapter)
    try:
        model = model.to(device)
    except (AssertionError, RuntimeError) as error:  # torch asserts that it was built for it
        raise ValueError(f"--device {device} cannot be used: {_first_sentence(error)}") from error
    return HFPolicy(
        model.eval(),
        tokenizer,
        max_completion_length=given.max_completion_length,
        temperature=given.temperature,
        rollouts_at_once=given.rollouts_at_once,
        chat_template_kwargs=given.chat_template_kwargs,
    )


def held_out(given: argparse.Namespace) -> Sequence[Mapping[str, Any]]:
    """The rows, with the prompt where it belongs.

    Raises:
        ValueError: a row has no usable prompt.
    """
    prompts: Any = given.prompts
    if given.prompt_column is not None:
        prompts = _renamed(given.prompts, given.prompt_column)
    rows = rows_from(prompts, "--prompts")
    if given.chat:
        rows = [
            {**row, "prompt": [{"role": "user", "content": row["prompt"]}]}
            if isinstance(row["prompt"], str)
            else row
            for row in rows
        ]
    return rows


def short_name(*names: str | None) -> str:
    """For a file: the last folder of each, or a hub name without its slash."""
    return "-".join(
        Path(name).resolve().name if Path(name).exists() else name.replace("/", "-")
        for name in names
        if name
    )


def _renamed(path: Path, column: str) -> list[dict[str, Any]]:
    rows = []
    for row, number in zip(*read_lines(path, "--prompts"), strict=True):
        if not isinstance(row, dict) or column not in row:
            has = sorted(row) if isinstance(row, dict) else "none"
            raise ValueError(
                f"--prompt-column {column}: {path}, line {number}, has no such column, it has "
                f"{has}."
            )
        others = {k: v for k, v in row.items() if k not in (column, "prompt")}
        rows.append({"prompt": row[column], **others})
    return rows


def _by_name(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is no object such as {{"name": false}}')
    return found


def _base_of(name: str, adapter: str | None) -> tuple[str, str | None]:
    """The model, and the adapter on it: a folder that holds only an adapter names its model."""
    config = Path(name) / "adapter_config.json"
    if adapter is None and config.is_file() and not (Path(name) / "config.json").is_file():
        base = json.loads(config.read_text(encoding="utf-8")).get("base_model_name_or_path")
        if not base:
            raise ValueError(f"{config} names no base model. Give MODEL and --adapter {name}.")
        return str(base), name
    return name, adapter


def _with_adapter(model: Any, adapter: str) -> Any:
    try:
        from peft import PeftModel
    except ImportError:
        raise ValueError(f"the adapter {adapter} needs peft: pip install peft.") from None
    try:
        return PeftModel.from_pretrained(model, adapter, is_trainable=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"--adapter {adapter} cannot be loaded: {_first_sentence(error)}"
        ) from error


def _first_sentence(error: Exception) -> str:
    text = (str(error).strip() or reason_of(error)).split("\n")[0]
    return text if text.endswith(".") else f"{text}."
