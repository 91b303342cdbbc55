"""What does reading counts cost beside parsing the file? One command, a table.

    python tests/benchmarks/reading.py        # about a minute on one core

Files of 5,000 prompts with 64 rollouts each, as each format writes them, with texts of a plausible
length. Times are processor time, the least of three, as ratios to what cannot be done without:
``json.loads`` of the same lines, or what unpacks the file. Growth is the time beside that of a
quarter of the prompts: 4 if it is linear, 16 if it is quadratic. Memory is the peak of what Python
holds, in kilobytes per prompt, with a quarter of the prompts. The figures are left in
``results/reading.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from passk_guard.counts import Counts, read_counts

RESULTS = Path(__file__).parent / "results" / "reading.json"
QUESTION, ANSWER = "What is it that was asked here? " * 8, "Let us think step by step. " * 20

Truth = np.ndarray  # (prompts, rollouts), right or wrong


def truth(prompts: int, rollouts: int) -> Truth:
    """Right or wrong, of prompts from impossible to easy."""
    rng = np.random.default_rng(0)
    return rng.random((prompts, rollouts)) < rng.beta(0.5, 0.5, (prompts, 1))


def plain(path: Path, right: Truth) -> None:
    with path.open("w") as file:
        for i, row in enumerate(right):
            for one in row:
                file.write(json.dumps({"prompt_id": f"task/{i}", "correct": bool(one)}) + "\n")


def verl(path: Path, right: Truth) -> None:
    with path.open("w") as file:
        for i, row in enumerate(right):
            for j, one in enumerate(row):
                line = {"input": f"{i} {QUESTION}", "output": ANSWER, "gts": str(i)}
                line |= {"score": float(one), "step": 1, "reward": float(one), "acc": bool(one)}
                file.write(json.dumps({**line, "uid": f"{i:032x}_{j}_0"}) + "\n")


def lm_eval(path: Path, right: Truth) -> None:
    with path.open("w") as file:
        for i, row in enumerate(right):
            asked = {"gen_args_0": {"arg_0": f"{i} {QUESTION}", "arg_1": {"until": ["\n"]}}}
            line = {"doc_id": i, "doc": {"question": QUESTION}, "target": "1", "arguments": asked}
            said = [[ANSWER] * len(row)]
            line |= {"resps": said, "filtered_resps": said, "filter": "none"}
            line |= {
                "metrics": ["pass@1"],
                "pass@1": float(row.mean()),
                "doc_hash": sha256(b"%d" % i).hexdigest(),
            }
            file.write(json.dumps(line) + "\n")


def inspect_ai(path: Path, right: Truth) -> None:
    samples = [
        {"id": i, "epoch": j + 1, "input": QUESTION, "scores": {"match": {"value": "IC"[int(one)]}}}
        for j, epoch in enumerate(right.T)
        for i, one in enumerate(epoch)
    ]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("header.json", json.dumps({"status": "success", "eval": {"task": "a"}}))
        file.writestr("summaries.json", json.dumps(samples))


def lighteval(path: Path, right: Truth) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {
            "doc": {
                "query": f"{i} {QUESTION}",
                "choices": ["1"],
                "gold_index": 0,
                "task_name": "a",
            },
            "metric": {f"pass@k:k=1&n={len(row)}": float(row.mean())},
            "model_response": {"text": [ANSWER] * len(row)},
        }
        for i, row in enumerate(right)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


def parse_lines(path: Path) -> None:
    with path.open("rb") as file:
        for line in file:
            json.loads(line)


def parse_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as file:
        json.loads(file.read("summaries.json"))


def parse_parquet(path: Path) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(256):
            batch.to_pylist()


WRITERS: dict[str, tuple[Callable[[Path, Truth], None], Callable[[Path], None]]] = {
    "counts": (plain, parse_lines),
    "verl": (verl, parse_lines),
    "lm_eval": (lm_eval, parse_lines),
    "inspect_ai": (inspect_ai, parse_zip),
    "lighteval": (lighteval, parse_parquet),
}


def is_right(counts: Counts, right: Truth) -> bool:
    """Whether all prompts are there, with their counts; they keep the order of the file."""
    return counts.correct.tolist() == right.sum(1).tolist() and set(counts.n) == {right.shape[1]}


def least(work: Callable[[], Any], repeats: int = 3) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def measure(name: str, folder: Path, prompts: int, rollouts: int) -> dict[str, Any]:
    """Write both files of a format, read them, and time it."""
    write, parse = WRITERS[name]
    right = truth(prompts, rollouts)
    quarter = right[: prompts // 4]
    whole, part = folder / f"{name}_whole", folder / f"{name}_part"
    write(whole, right)
    write(part, quarter)
    if not is_right(read_counts(whole), right) or not is_right(read_counts(part), quarter):
        raise AssertionError(f"{name}: the counts are not those that were written")
    seconds = least(lambda: read_counts(whole))
    tracemalloc.start()
    read_counts(part)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    figures = {
        "megabytes": round(whole.stat().st_size / 1e6, 1),
        "beside_parsing": round(seconds / least(lambda: parse(whole)), 2),
        "growth": round(seconds / least(lambda: read_counts(part)), 2),
        "memory": round(peak / len(quarter) / 1000, 2),
    }
    whole.unlink()
    part.unlink()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=5000)
    parser.add_argument("--rollouts", type=int, default=64)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    found: dict[str, Any] = {"prompts": options.prompts, "rollouts": options.rollouts}
    print("| format | file, MB | time beside parsing it | growth from a quarter | kB per prompt |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in WRITERS:
            found[name] = measure(name, Path(folder), options.prompts, options.rollouts)
            print(f"| {name} | {' | '.join(map(str, found[name].values()))} |", flush=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
