"""The field study's tasks: worked solutions are right, verifiers tell, parts stay apart."""

from extras import needs

needs("reasoning_gym")

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from field import countdown, expressions, multiplication
from field.language import make_tokenizer
from field.problems import PARTS, part_of
from field.sizes import TASKS


def score(task, problem, completion):
    columns = {"prompts": [problem.prompt], "answer": [problem.answer]}
    return task.verify(completions=[completion], **columns)[0]


@pytest.mark.parametrize("name", TASKS)
def test_rows_are_solved_by_their_solutions_and_fit(name):
    task, tokenizer = TASKS[name], make_tokenizer()
    rows = task.rows("pool", 300, 3)
    columns = {key: [row[key] for row in rows] for key in ("answer", "solution")}
    prompts = [row["prompt"] for row in rows]
    assert all(task.verify(prompts=prompts, completions=columns["solution"], **columns))
    told = tokenizer(columns["solution"])["input_ids"]
    assert sum(len(ids) < task.longest for ids in told) >= 297
    for ids, text in zip(tokenizer(prompts)["input_ids"], prompts, strict=True):
        assert tokenizer.decode(ids) == text
        assert tokenizer.unk_token_id not in ids
    # another row's answer is hardly ever right: a verifier that says yes to all would show here
    shifted = columns["solution"][1:] + columns["solution"][:1]
    assert sum(task.verify(prompts=prompts, completions=shifted, **columns)) < 15
    share = sum(row["wrong"] for row in rows) / len(rows)
    assert abs(share - task.wrong_labels) <= (0.06 if task.wrong_labels else 0)


@pytest.mark.parametrize("name", ["multiplication", "countdown", "expressions"])
def test_wrong_labels_are_what_the_right_solution_misses(name):
    rng, task = random.Random(0), TASKS[name]
    for _ in range(50):
        wrong = task.draw(rng, True)
        assert score(task, wrong, wrong.solution) == 1
        assert score(task, wrong, right_solution(name, wrong)) == 0


def right_solution(name, problem):
    if name == "multiplication":
        return multiplication.worked(*map(int, problem.prompt[:-1].split("*")))
    if name == "expressions":
        tokens = problem.prompt.removeprefix("Calculate ").removesuffix(".").split()
        return ";".join(expressions.worked(tokens, left_to_right=False))
    numbers, asked = problem.prompt.removesuffix("?").split(" for ")
    rng = random.Random(0)
    for _ in range(2000):
        value, steps = countdown.attempt(rng, [int(n) for n in numbers.split()])
        if value == int(asked):
            return steps + "!"
    return "!"  # what is printed can hardly be reached


def test_parts_never_share_a_prompt():
    task = TASKS["countdown"]
    parts = [{row["prompt"] for row in task.rows(part, 300, 0)} for part in PARTS]
    assert not (parts[0] & parts[1])
    assert not (parts[0] & parts[2])
    assert not (parts[1] & parts[2])
    assert all(
        part_of(prompt) == part for part, rows in zip(PARTS, parts, strict=True) for prompt in rows
    )
    assert task.rows("pool", 20, 0) == task.rows("pool", 20, 0) != task.rows("pool", 20, 1)


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("3*7=21,21-5=16!", True),
        ("3+7=10,10+5=15;3*7=21,21-5=16!", True),
        ("3*7=21,21-5=16", False),  # never said to be right
        ("3*7=21,21-5=17!", False),  # wrong sum
        ("3*5=15,15+1=16!", False),  # a number that was not given
        ("5+5=10,10+3=13,13+3=16!", False),  # given once
        ("3*7=21,21-5=16!;5+3=8!", False),  # the last one counts
        ("16!", False),
        ("", False),
    ],
)
def test_countdown_is_verified_step_by_step(completion, right):
    assert countdown.reaches(completion, [3, 7, 5], 16) is right


def test_a_task_without_wrong_labels_has_none():
    assert not any(row["wrong"] for row in TASKS["multiplication"].rows("test", 100, 0))
