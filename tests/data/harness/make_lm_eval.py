"""Logs of lm-evaluation-harness, written by itself.

    python make_lm_eval.py FOLDER OUT

with lm-eval, transformers and accelerate installed; FOLDER is what make_model.py wrote. Two tasks:
``digits_sum`` with six sampled answers to each question and pass@1, 2 and 4 of them, as
``humaneval`` has it, and ``digits_product`` with two answers, of which both its filters take the
first, as ``gsm8k`` has it. pass@k is computed by the function of the harness' own ``cruxeval``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import lm_eval
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager

COMMON = """\
task: {task}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{answer}}}}"
num_fewshot: 0
"""
SUM = """\
repeats: 6
generation_kwargs:
  until: ["="]
  do_sample: true
  temperature: 1.0
  max_gen_toks: 2
metric_list:
  - metric: !function verdicts.pass_at_k
    aggregation: mean
    higher_is_better: true
    k: [1, 2, 4]
filter_list:
  - name: all_six
    filter:
      - function: custom
        filter_fn: !function verdicts.keep_all
"""
PRODUCT = """\
repeats: 2
generation_kwargs:
  until: ["="]
  do_sample: true
  temperature: 1.0
  max_gen_toks: 3
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
filter_list:
  - name: strict
    filter:
      - function: take_first
  - name: first_digits
    filter:
      - function: regex
        regex_pattern: "(\\\\d \\\\d)"
      - function: take_first
"""
VERDICTS = """\
from lm_eval.tasks.cruxeval.utils import _pass_at_k


def pass_at_k(references, predictions, k):
    [answer], [said] = references, predictions
    right = sum(one.split() == answer.split() for one in said)
    return {f"pass@{one}": float(_pass_at_k(len(said), right, one)) for one in k}


def keep_all(resps, docs):
    return [list(r) for r in resps]
"""


def main(out: Path) -> None:
    tasks = Path("lm_eval_tasks")
    tasks.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in Path("questions.jsonl").read_text().splitlines()]
    for kind, rest in (("sum", SUM), ("product", PRODUCT)):
        data = tasks / f"{kind}.jsonl"
        data.write_text("".join(json.dumps(r) + "\n" for r in rows if r["kind"] == kind))
        text = COMMON.format(task=f"digits_{kind}", data=data) + rest
        (tasks / f"digits_{kind}.yaml").write_text(text)
    (tasks / "verdicts.py").write_text(VERDICTS)
    tracker = EvaluationTracker(output_path=str(out))
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": "model", "device": "cpu", "dtype": "float32"},
        tasks=["digits_sum", "digits_product"],
        task_manager=TaskManager(include_path=str(tasks)),
        batch_size=8,
        evaluation_tracker=tracker,
        bootstrap_iters=0,
    )
    samples = found.pop("samples")
    found.pop("pretty_env_info", None)  # of the machine that made this
    tracker.save_results_aggregated(results=found, samples=samples)
    for task, of_task in samples.items():
        tracker.save_results_samples(task_name=task, samples=of_task)


if __name__ == "__main__":
    target = Path(sys.argv[2]).resolve()
    os.chdir(sys.argv[1])  # no paths of this machine in the logs
    main(target)
