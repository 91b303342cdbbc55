"""A tiny model and its questions, in files that every harness can take.

    python make_model.py FOLDER

writes FOLDER/model, a Llama of 86 k parameters that adds two digits and is right now and then, and
FOLDER/questions.jsonl: sums and products with their answers. Needs this repository's own
environment.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "examples"))

import torch
from ambiguous_arithmetic import make_model, make_tokenizer, warm_up


def questions() -> list[dict[str, str]]:
    """Ten sums and six products, of digits."""
    sums = [(a, (3 * a + 4) % 10) for a in range(10)]
    products = [(a, (7 * a + 2) % 10) for a in range(2, 8)]
    return [
        {"kind": kind, "prompt": f"{a} {b} =", "answer": " ".join(f"{value:02d}")}
        for kind, a, b, value in [
            *(("sum", a, b, a + b) for a, b in sums),
            *(("product", a, b, a * b) for a, b in products),
        ]
    ]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    warm_up(model, tokenizer, steps=500, products=0.3)
    model.generation_config.do_sample = True  # lighteval leaves that to the model
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = questions()
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "questions.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
