"""GSM8K with math-verify: rows and verifier for the examples that take a real model.

Data: 200 problems of the GSM8K test split (Cobbe et al. 2021, arXiv 2110.14168), MIT licence, see
data/gsm8k/LICENSE.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datasets import Dataset
from math_verify import parse, verify
from models import as_prompt, text_of

DATA = Path(__file__).parent / "data" / "gsm8k" / "test-200.jsonl"
ASK = "\nThink step by step and give the final answer behind ####."


def problems() -> list[dict[str, str]]:
    """Question and answer, whose last line is ``#### number``."""
    return [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]


def make_rows(tokenizer: Any) -> Dataset:
    """Rows with ``prompt``, as the model wants it, and ``answer``, the bare number."""
    return Dataset.from_list(
        [
            {
                "prompt": as_prompt(problem["question"] + ASK, tokenizer),
                "answer": problem["answer"].split("####")[-1].strip(),
            }
            for problem in problems()
        ]
    )


def solved(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
    """The verifier: 1 where math-verify finds the reference answer behind the last ####."""
    final = [text_of(completion).rpartition("####") for completion in completions]
    return [
        float(bool(marker) and verify(parse(a), parse(text)))
        for (_, marker, text), a in zip(final, answer, strict=True)
    ]
