"""Logs of inspect_ai, written by itself.

    python make_inspect_ai.py FOLDER OUT

with inspect-ai, torch, transformers and accelerate installed; FOLDER is what make_model.py wrote.
Four epochs of every second question, under three scorers: ``match``, one with partial credit, and
one with a dict of scores, or no verdict. The reducers ``pass_at_1`` to ``pass_at_3`` are
inspect_ai's. The same log is written as ``.eval`` and as ``.json``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

from inspect_ai import Epochs, Task, eval, task
from inspect_ai.dataset import Sample
from inspect_ai.log import read_eval_log, write_eval_log
from inspect_ai.model import GenerateConfig, get_model
from inspect_ai.scorer import Score, Target, accuracy, match, mean, scorer
from inspect_ai.solver import TaskState, generate


@scorer(metrics=[accuracy()])
def graded():
    """C for the answer, P for one digit of it, N where the model says 0 0."""

    async def score(state: TaskState, target: Target) -> Score:
        said, wanted = state.output.completion.split(), target.text.split()
        if said == wanted:
            return Score(value="C")
        if said == ["0", "0"]:
            return Score(value="N")
        return Score(value="P" if set(said) & set(wanted) else "I")

    return score


@scorer(metrics={"tens": [mean()], "ones": [mean()]})
def digits():
    """Each digit by itself; no verdict on answers with other words."""

    async def score(state: TaskState, target: Target) -> Score:
        said, wanted = state.output.completion.split(), target.text.split()
        if not all(word.isdigit() for word in said):
            return Score.unscored(reason="not all digits")
        pairs = zip(("tens", "ones"), [*said, "", ""], wanted, strict=False)
        return Score(value={name: float(s == w) for name, s, w in pairs})

    return score


@task
def digits_asked() -> Task:
    lines = Path("questions.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[::2]]
    return Task(
        dataset=[Sample(id=r["prompt"][:3], input=r["prompt"], target=r["answer"]) for r in rows],
        solver=generate(),
        scorer=[match(location="exact"), graded(), digits()],
        epochs=Epochs(4, ["pass_at_1", "pass_at_2", "pass_at_3"]),
        config=GenerateConfig(temperature=2.0, max_tokens=2, seed=0),
    )


def main(out: Path) -> None:
    model = get_model(
        "hf/model",
        model_path="model",
        device="cpu",
        chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}",
    )
    [log] = eval(digits_asked(), model=model, log_dir=str(out), display="none", log_format="eval")
    # The traces of single calls are long, and no reader looks at them; nor at where it ran.
    for sample in log.samples or []:
        sample.events, sample.attachments, sample.messages = [], {}, []
        sample.output.usage, sample.model_usage, sample.role_usage = None, {}, {}
    log.eval.task_file = log.eval.revision = None
    for name in ("digits_asked.eval", "digits_asked.json"):
        write_eval_log(log, str(out / name))
    Path(log.location).unlink()
    assert len(read_eval_log(str(out / "digits_asked.eval")).samples or []) == 32


if __name__ == "__main__":
    target = Path(sys.argv[2]).resolve()
    os.chdir(sys.argv[1])
    main(target)
