"""Logs that evaluation harnesses wrote; see tests/data/harness/README.md."""

import json
from pathlib import Path

from places import DATA

HARNESS = DATA / "harness"
LM_SUM = next(HARNESS.glob("lm_eval/samples_digits_sum_*.jsonl"))
LM_PRODUCT = next(HARNESS.glob("lm_eval/samples_digits_product_*.jsonl"))
LM_RESULTS = next(HARNESS.glob("lm_eval/results_*.json"))
INSPECT = HARNESS / "inspect_ai"
LIGHT_OFTEN = next(HARNESS.glob("lighteval/details_digits_often-*.parquet"))
LIGHT_ONCE = next(HARNESS.glob("lighteval/details_digits_once-*.parquet"))
VERL = HARNESS / "verl"


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_lines(path: Path, lines: list) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def table(counts) -> dict[str, tuple[int, int]]:
    """Right rollouts and all, by prompt."""
    pairs = zip(counts.correct.tolist(), counts.n.tolist(), strict=True)
    return dict(zip(counts.ids, pairs, strict=True))
