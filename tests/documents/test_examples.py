"""Every example runs, without a model's name and with one, and is short enough to be read."""

from extras import needs
from places import ROOT

needs("trl", "lightning", "math_verify", "reasoning_gym")

import os
import random
import re
import runpy
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import gsm8k
import models
import passk_loss
import pytest
import simko
import tasks
import torch

from passk_guard import HFPolicy, PassKObjective
from passk_guard.reporting.read_run import read_run
from passk_guard.rollouts.token_log_probs import token_log_probs

SHARED = {"ambiguous_arithmetic", "gsm8k", "models", "passk_loss", "smollm2", "tasks"}
TESTED_ELSEWHERE = {"bandit", "demo", "real_model"}
TINY = {  # settings without a model's name, and the steps in the table
    "accelerate_two_processes": (["--steps", 10, "--warm-up", 50], [0, 10]),
    "before_and_after": (["--steps", 10, "--warm-up", 50], [0, 10]),
    "hf_trainer": (["--steps", 10, "--warm-up", 50], [0, 10]),
    "lightning_module": (["--steps", 10, "--warm-up", 50], [0, 10]),
    "plain_loop": (["--steps", 10, "--warm-up", 50], [0, 10]),
    "simko": (["--steps", 10, "--warm-up", 50], [0, 10]),
    "trl_gsm8k": (["--steps", 2], [0]),
    "trl_reasoning_gym": (["--steps", 5, "--warm-up", 100], [0, 5]),
}
pytestmark = [
    pytest.mark.filterwarnings("ignore::passk_guard.errors.PassKGuardWarning"),  # alarms
    # What trainers say on a machine that has no GPU for the real model.
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true"),
]


def path(name):
    return ROOT / "examples" / f"{name}.py"


def run(name, arguments, out, monkeypatch):
    """As the main program, in this process: imports are most of a small run's time."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments), "--out", str(out)])
    random.seed(0)
    torch.manual_seed(0)
    runpy.run_path(str(path(name)), run_name="__main__")


def steps_in_table(text):
    return [int(step) for step in re.findall(r"^ +(\d+) +[\d.]+ +[\d.]+ +[+-]", text, re.MULTILINE)]


def test_every_example_has_an_entry_here():
    found = {file.stem for file in (ROOT / "examples").glob("*.py")}
    assert found - SHARED - TESTED_ELSEWHERE == set(TINY)
    assert found >= SHARED


@pytest.mark.parametrize("name", TINY)
def test_an_example_is_short_and_names_its_own_file_in_both_commands(name):
    text = path(name).read_text()
    assert len(text.splitlines()) < 80
    assert set(re.findall(r"^    .*examples/(\w+)\.py", text, re.MULTILINE)) == {name}
    assert "--model Qwen/Qwen2.5-0.5B-Instruct" in text


@pytest.mark.parametrize("name", sorted(set(TINY) - {"accelerate_two_processes"}))
def test_an_example_ends_with_the_guard_s_table(name, tmp_path, monkeypatch, capsys):
    arguments, steps = TINY[name]
    load = tasks.load

    def small(*given):
        task = load(*given)
        held_out = task.held_out.select(range(64))
        return replace(task, prompts_at_once=8, reference_prompts=12, held_out=held_out)

    monkeypatch.setattr(tasks, "load", small)
    run(name, arguments, tmp_path, monkeypatch)
    table = "".join(capsys.readouterr())  # a trainer's comes with its progress bar, on stderr
    assert steps_in_table(table) == steps
    assert ("no signal" in table) == (name == "trl_gsm8k")  # the others have something to show
    told = read_run(tmp_path)
    assert [look["step"] for look in told.looks] == steps
    assert told.end is not None


def test_two_processes_share_the_work_and_have_one_table(tmp_path):
    arguments, steps = TINY["accelerate_two_processes"]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    command += ["--num_processes", 2, "--main_process_port", 0, path("accelerate_two_processes")]
    result = subprocess.run(
        [str(part) for part in (*command, *arguments, "--out", tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stderr
    assert steps_in_table(result.stderr) == steps  # once: the first process alone speaks
    said = re.findall(r"Process (\d) verified (\d+) held-out rollouts, and has (.*)", result.stdout)
    # The reference, two rollouts of each of its prompts at the later look, and some once more.
    share = str((512 * 12 + 512 * 2 + len(steps) * 128) // 2)
    assert said == [("0", share, "the same table."), ("1", share, "the same table.")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model with a chat template, saved; it says one of six numbers."""
    torch.manual_seed(0)
    problems = gsm8k.problems()
    model, tokenizer = models.load(None, [p["question"] + p["answer"] for p in problems])
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + '\n' }}{% endfor %}"
    asked = [p["question"][-20:] + gsm8k.ASK + "\n" for p in problems]
    answers = Counter(p["answer"].split("####")[-1] for p in problems)
    told = [f"####{answer}" for answer, _ in answers.most_common(6)] * len(problems)
    models.teach(model, tokenizer, asked, told[: len(asked)], steps=150)
    out = tmp_path_factory.mktemp("model")
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


@pytest.mark.parametrize("name", TINY)
def test_an_example_takes_a_real_model_by_its_name(name, folder, tmp_path, monkeypatch, capsys):
    from transformers import AutoModelForCausalLM

    loaded = []
    load = AutoModelForCausalLM.from_pretrained

    def noted(where, **settings):
        loaded.append(load(where, **settings))
        return loaded[-1]

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", noted)
    whole = tasks.load

    def small(*given):
        task = whole(*given)
        task.model.generation_config.max_new_tokens = 24  # answers are shorter
        return replace(task, held_out=task.held_out.select(range(24)))

    monkeypatch.setattr(tasks, "load", small)
    # As the main program does, with a name in place of the folder's.
    run(name, ["--model", folder, "--steps", 2], tmp_path, monkeypatch)
    assert set(steps_in_table("".join(capsys.readouterr()))) == {0}
    assert len(loaded) == 1
    if name in ("hf_trainer", "lightning_module", "plain_loop"):  # some of 256 rollouts are right
        before = load(folder, dtype=torch.float32).state_dict()
        assert any(not torch.equal(before[k], v) for k, v in loaded[0].state_dict().items())


def test_math_verify_really_verifies():
    completions = ["so #### 5", "#### $1,200.00", "5", "#### 6", r"#### \boxed{5}"]
    assert gsm8k.solved(completions, ["5", "1200", "5", "5", "5"]) == [1, 1, 0, 0, 1]
    chat = [[{"role": "assistant", "content": text}] for text in completions]
    assert gsm8k.solved(chat, ["5", "1200", "5", "5", "5"]) == [1, 1, 0, 0, 1]


def test_a_part_of_a_reasoning_gym_score_is_no_right_answer():
    import trl_reasoning_gym as example

    row = next(i for i in range(100) if example.GYM[i]["answer"] == "1")
    said = ["<answer>1</answer>", "<answer>12</answer>", "<answer>2</answer>", "1"]
    assert example.score(said, [row] * 4) == [1.0, 0.5, 0.0, 0.0]
    assert "success_threshold=1.0" in path("trl_reasoning_gym").read_text()


def test_held_out_rows_of_reasoning_gym_are_no_training_rows():
    import trl_reasoning_gym as example

    questions = [entry["question"] for entry in example.GYM]
    shared = set(questions[:2048]) & set(questions[2048:])
    assert len(shared) < 0.01 * 1024


def test_the_loss_weighs_each_prompt_s_own_log_probs_however_long_it_is():
    model, tokenizer = models.load(None, ["a b c d e"])
    model.generation_config.max_new_tokens = 4
    rows = [{"prompt": "a"}, {"prompt": "a b c d e a b c"}]
    policy, objective = HFPolicy(model, tokenizer), PassKObjective(k=2)

    def in_ascii(completions):
        return [float(c[:1].isascii()) for c in completions]

    torch.manual_seed(1)
    loss = passk_loss.passk_loss(policy, rows, objective, in_ascii)
    torch.manual_seed(1)
    want = 0.0
    for group in policy.generate(rows, range(2), passk_loss.ROLLOUTS):
        advantages = objective(torch.tensor([in_ascii(group.completions)]))[0]
        assert len(set(advantages.tolist())) == 2
        scores = token_log_probs(model, *group.tokens).sum(-1)
        want = want - (advantages * scores).mean() / 2
    assert torch.allclose(loss, want, atol=1e-5)


def test_the_gradient_of_simko_is_that_of_its_formula():
    """On-policy: A (e_token - π), with a share of it spread over the top candidates at forks."""
    rng = torch.Generator().manual_seed(0)
    logits, advantages = torch.randn(4, 6, 8, generator=rng), torch.tensor([1.0, -1.0, 0.5, -0.5])
    tokens, mask = torch.randint(8, (4, 6), generator=rng), torch.ones(4, 6)
    tokens[:, ::2], mask[0, 4:] = logits[:, ::2].argmax(-1), 0
    new = logits.clone().requires_grad_()
    simko.simko(new, logits, tokens, mask, advantages).sum().backward()
    for i, a in enumerate(advantages):
        steps = int(mask[i].sum())
        pi = logits[i].softmax(-1)
        entropy = -(pi * pi.log()).sum(-1)[:steps]
        for t in range(steps):
            weight, want = a, -pi[t].clone()
            fork = entropy[t] > entropy.quantile(simko.FORKING)
            want[tokens[i, t]] += 1 - simko.SMOOTHING * (fork and a > 0)
            if fork and a > 0:
                want[pi[t].topk(simko.TOP_K).indices] += simko.SMOOTHING / simko.TOP_K
            elif fork and tokens[i, t] == pi[t].argmax():
                weight = a * simko.PENALTY
            torch.testing.assert_close(new.grad[i, t], weight * want, atol=1e-5, rtol=1e-4)
        assert not new.grad[i, steps:].any()
