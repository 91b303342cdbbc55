"""Details of lighteval, written by itself.

    python make_lighteval.py FOLDER OUT

with lighteval and transformers installed; FOLDER is what make_model.py wrote. Eight sampled answers
to each question, under ``pass@k`` for k of 1, 2 and 4 and ``avg@n``, all lighteval's own; and the
task ``digits_once`` with one answer and a metric without k.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

TASKS = """\
import numpy as np

from lighteval.metrics.metrics_sample import AvgAtN, ExactMatches, PassAtK
from lighteval.metrics.utils.metric_utils import SampleLevelMetric
from lighteval.tasks.lighteval_task import LightevalTaskConfig
from lighteval.tasks.requests import Doc, SamplingMethod


def metric(name, sample_level_fn):
    return SampleLevelMetric(
        metric_name=name,
        sample_level_fn=sample_level_fn,
        category=SamplingMethod.GENERATIVE,
        corpus_level_fn=np.mean,
        higher_is_better=True,
    )


def ask(row, task_name=None):
    return Doc(task_name=task_name, query=row["prompt"], choices=[row["answer"]], gold_index=0)


def task(name, metrics):
    return LightevalTaskConfig(
        name=name,
        prompt_function=ask,
        hf_repo="lighteval_data",
        hf_subset="default",
        hf_avail_splits=["test"],
        evaluation_splits=["test"],
        metrics=metrics,
        generation_size=2,
        stop_sequence=[],
        version=0,
    )


passes = [
    metric("pass@k", PassAtK(strip_strings=True))({"k": k, "n": 8}) for k in (1, 2, 4)
]
average = metric("avg@n", AvgAtN(strip_strings=True))({"n": 8})
once = metric("em", ExactMatches(strip_strings=True))
TASKS_TABLE = [task("digits_often", [*passes, average, once]), task("digits_once", [once])]
"""


def main(out: Path) -> None:
    data = Path("lighteval_data")
    data.mkdir(exist_ok=True)
    (data / "test.jsonl").write_text(Path("questions.jsonl").read_text())
    Path("lighteval_digits.py").write_text(TASKS)

    from lighteval.logging.evaluation_tracker import EvaluationTracker
    from lighteval.models.model_input import GenerationParameters
    from lighteval.models.transformers.transformers_model import TransformersModelConfig
    from lighteval.pipeline import ParallelismManager, Pipeline, PipelineParameters
    from lighteval.tasks.registry import Registry

    # lighteval imports all of its tasks to find one, and some of them fetch files as they are.
    Registry._load_from_files = Registry._load_from_subdirs = staticmethod(lambda *_: {})
    pipeline = Pipeline(
        tasks="digits_often|0,digits_once|0",
        pipeline_parameters=PipelineParameters(
            launcher_type=ParallelismManager.ACCELERATE,
            custom_tasks_directory="lighteval_digits.py",
        ),
        evaluation_tracker=EvaluationTracker(output_dir=str(out), save_details=True),
        model_config=TransformersModelConfig(
            model_name="model",
            batch_size=4,
            max_length=16,
            device="cpu",
            dtype="float32",
            generation_parameters=GenerationParameters(temperature=1.0, seed=0),
        ),
    )
    pipeline.evaluate()
    pipeline.save_and_push_results()


if __name__ == "__main__":
    target = Path(sys.argv[2]).resolve()
    os.chdir(sys.argv[1])
    main(target)
