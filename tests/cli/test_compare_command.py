"""``passk-guard compare``: its exit status is what a release hangs on."""

from extras import needs

needs("transformers", "matplotlib", "html5lib")

import json

import ambiguous_arithmetic as task
import html5lib
import numpy as np
import pytest
import torch

from passk_guard.cli.main import main
from passk_guard.reporting.comparison_page import comparison_page


def write(path, shift=0.0, m=400, n=32, seed=0, text=None, first=None):
    rng = np.random.default_rng(seed)
    p = np.clip(np.linspace(0.02, 0.98, m) + shift, 0, 1)
    lines = [
        {"prompt_id": f"p{i}", "correct": int(c), "n": n, "group": "ab"[i % 2]}
        | ({} if text is None else {"prompt": text})
        for i, c in enumerate(rng.binomial(n, p))
    ]
    path.write_text("\n".join(map(json.dumps, lines[:first])) + "\n")
    return str(path)


@pytest.fixture
def run(capfd):
    def run(*words):
        try:
            status = main(["compare", *map(str, words)])
        except SystemExit as error:
            status = error.code
        return status, *capfd.readouterr()

    return run


def test_the_status_is_the_decision(run, tmp_path):
    a, same = write(tmp_path / "a.jsonl"), write(tmp_path / "b.jsonl", seed=1)
    less = write(tmp_path / "c.jsonl", shift=-0.05, seed=2)
    few = write(tmp_path / "d.jsonl", seed=3, first=20)
    assert run(a, same, "--tolerance", "0.03")[0] == 0
    status, out, _ = run(a, less, "--tolerance", "0.01")
    assert status == 1
    assert out.startswith("pass@1 fell by more than 1 point")
    assert run(a, few)[0] == 2
    assert run(a, same, "--tolerance", "0")[0] == 2
    assert run(a, tmp_path / "nowhere.jsonl")[0] == 3


def test_what_is_printed_and_written(run, tmp_path):
    a = write(tmp_path / "a.jsonl", text="<b>How many?</b>")
    b = write(tmp_path / "b.jsonl", shift=-0.5, seed=1, text="<b>How many?</b>")
    page = tmp_path / "new" / "page.html"
    status, out, _ = run(a, b, "--out", page, "--log-prompts")
    assert status == 1
    assert "k   before  after" in out
    assert "Lost by more than 10 points" in out
    assert "and " in out
    assert "more: --json or --out names all" in out
    assert all(len(line) <= 80 or str(tmp_path) in line for line in out.splitlines())
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page.read_text())
    text = " ".join("".join(tree.find("body").itertext()).split())
    assert "pass@1 fell by more than 1 point" in text
    assert "<b>How many?</b>" in text
    status, out, _ = run(a, b, "--json")
    record = json.loads(out)
    assert record["decision"] == status == 1
    assert record["lost"][0]["text"] is None
    assert [group["name"] for group in record["groups"]] == ["a", "b"]
    plain = comparison_page(record)
    assert "How many" not in plain
    one = comparison_page({**record, "changes": record["changes"][:1], "groups": []})
    html5lib.HTMLParser(strict=True).parse(one)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{a}"], "the following arguments are required: B"),
        (["{a}", "{b}", "--no-such"], "unrecognized arguments"),
        (["{a}", "{b}", "--tolerance", "much"], "invalid float value"),
        (["{a}", "{b}", "-k", "100"], "no prompt has k=100 rollouts"),
        (["{a}", "{b}", "--metric", "acc"], "metric='acc' means nothing for"),
        (
            ["{a}", "some/model"],
            "some/model is no file here, so taken for a model, which needs --prompts",
        ),
        (["{a}", "{broken}"], "line 2"),
    ],
)
def test_bad_input_is_status_3_and_a_sentence(run, tmp_path, words, said):
    places = {
        "a": write(tmp_path / "a.jsonl"),
        "b": write(tmp_path / "b.jsonl", seed=1),
        "broken": tmp_path / "broken.jsonl",
    }
    line = '{"prompt_id": "z", "correct": 1, "n": 8}\n'
    places["broken"].write_text(f"{line}not json\n{line}")
    status, out, err = run(*(word.format(**places) for word in words))
    assert (status, out) == (3, "")
    assert said in err
    assert "Traceback" not in err


@pytest.mark.long
def test_two_models_are_sampled_and_compared(run, tmp_path):
    tokenizer = task.make_tokenizer()
    model = task.make_model(tokenizer)
    task.warm_up(model, tokenizer, steps=200)
    rows = task.make_rows(208).to_list()
    (tmp_path / "held_out.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "judge.py").write_text(
        "def verify(completions, answer, **_):\n"
        "    return [float(c.split()[:1] == a.split()[:1]) for c, a in zip(completions, answer)]\n"
    )
    for name in ("before", "after"):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        with torch.no_grad():
            model.lm_head.weight += 1e-4 * torch.randn_like(model.lm_head.weight)
    options = [
        "--prompts",
        tmp_path / "held_out.jsonl",
        "--verifier",
        f"{tmp_path}/judge.py:verify",
    ]
    options += ["--max-completion-length", "2", "-n", "4", "--journals", tmp_path / "journals"]
    status, out, err = run(tmp_path / "before", tmp_path / "after", *options)
    assert status == 0, err
    assert "that both score" in " ".join(out.split())
    assert len(list((tmp_path / "journals").glob("compare-*.jsonl"))) == 2
    status, out, _ = run(tmp_path / "before", tmp_path / "after", *options, "--json")
    assert json.loads(out)["common"]["allowed"]
