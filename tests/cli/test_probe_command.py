"""``passk-guard probe``: a real model on the disk, from the command line."""

from extras import needs

needs("transformers", "peft", "matplotlib", "html5lib", "math_verify")

import argparse
import json
import os
import signal
import subprocess
import sys
import time

import ambiguous_arithmetic as task
import html5lib
import pytest
import torch

from passk_guard.cli.main import main
from passk_guard.cli.models import held_out

VERIFIER = """
def verify(completions, answer, **_):
    return [float(c.split()[:1] == a.split()[:1]) for c, a in zip(completions, answer)]

def slow(completions, answer, **_):
    import time
    time.sleep(1.0)
    return verify(completions, answer)

def fails(completions, **_):
    raise RuntimeError("the sandbox is down")

number = 3
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, prompts and a verifier in one folder."""
    folder = tmp_path_factory.mktemp("place")
    tokenizer = task.make_tokenizer()
    model = task.make_model(tokenizer)
    task.warm_up(model, tokenizer, steps=150)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = task.make_rows(128).to_list()
    for row in rows:
        row["kind"] = row["prompt"][0]
    (folder / "held_out.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "my_verifier.py").write_text(VERIFIER)
    return folder


@pytest.fixture
def probe(place, tmp_path, monkeypatch, capfd):
    """Runs the command in the folder; its status, output and complaints."""
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))

    def run(*arguments, model="model", **options):
        given = {
            "--prompts": "held_out.jsonl",
            "--verifier": "my_verifier:verify",
            "--max-completion-length": "2",
            "--num-prompts": "64",
            "-k": "4",
            "--journal": str(tmp_path / "probe.jsonl"),
            **options,
        }
        words = [word for pair in given.items() for word in pair if word is not None]
        try:
            status = main(["probe", model, *words, *arguments])
        except SystemExit as error:
            status = error.code
        out, err = capfd.readouterr()
        return status, out, err

    return run


def test_it_prints_a_verdict_and_every_k(probe, tmp_path):
    status, out, err = probe("--group-by", "kind", "--out", str(tmp_path / "page" / "probe.html"))
    assert status == 0, err
    assert "pass@4" in out
    assert "z of ⟨∇J_k, ∇J_1⟩" in out
    assert "kind" in out
    assert all(len(line) <= 80 for line in out.splitlines() if not line.startswith(("J", "P")))
    page = (tmp_path / "page" / "probe.html").read_text()
    html5lib.HTMLParser(strict=True).parse(page)
    journal = (tmp_path / "probe.jsonl").read_text()
    assert journal.count('"look": "prompt"') == 64
    assert '"prompt": "' not in journal  # no text unless asked for


def test_json_is_one_object_and_goes_on_from_the_journal(probe):
    status, out, _ = probe("--json")
    first = json.loads(out)
    assert status == 0
    assert first["prompts"] == 64
    assert first["name"] == "model"
    assert first["settings"]["max_completion_length"] == 2
    again = json.loads(probe("--json")[1])
    assert again["pass_at"] == first["pass_at"]
    assert again["seconds"]["sampling"] < first["seconds"]["sampling"]
    quoted = json.loads(probe("--json", "--log-prompts")[1])
    assert not quoted["conflict"] or "prompt" in quoted["conflict"]["prompts"][0]


def test_an_adapter_is_probed_on_its_model(probe, place, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(place / "model")
    adapted = get_peft_model(model, LoraConfig(r=2, init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    status, out, err = probe("--json", "--adapter", str(tmp_path / "adapter"))
    assert status == 0, err
    with_it = json.loads(out)
    assert with_it["name"] == f"model + {tmp_path / 'adapter'}"
    plain = json.loads(probe("--json", **{"--journal": str(tmp_path / "other.jsonl")})[1])
    assert with_it["pass_at"] != plain["pass_at"]
    # A folder that holds nothing but the adapter names its model itself.
    config = tmp_path / "adapter" / "adapter_config.json"
    named = json.loads(config.read_text()) | {"base_model_name_or_path": str(place / "model")}
    config.write_text(json.dumps(named))
    alone = probe("--json", model=str(tmp_path / "adapter"))
    assert json.loads(alone[1])["pass_at"] == with_it["pass_at"]


def test_math_verify_reads_the_answer_column(probe, tmp_path):
    status, _, err = probe("--json", **{"--verifier": "math"})
    assert status == 0, err
    from passk_guard.cli.verifiers import named_verifier

    scores = named_verifier("math")(
        ["so it is $\\frac{1}{2}$", [{"content": "#### 7"}], "3"],
        answer=["0.5", "long #### 7", "4"],
    )
    assert scores == [1.0, 1.0, 0.0]


def test_chats_and_other_columns(probe, place, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(place / "model")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{% endfor %}"
        "{% if not enable_thinking %} ={% endif %}"
    )
    chat = tmp_path / "chat"
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(place / "model").save_pretrained(chat)
    tokenizer.save_pretrained(chat)
    rows = [{"question": f"{a} {b}", "answer": f"{a + b:02d}"} for a in range(8) for b in range(8)]
    questions = tmp_path / "questions.jsonl"
    questions.write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "chats.py").write_text(
        "def verify(completions, answer, **_):\n"
        "    return [float(c[-1]['content'][:1] == a[0]) for c, a in zip(completions, answer)]\n"
    )
    options = {
        "--prompts": str(questions),
        "--prompt-column": "question",
        "--verifier": f"{tmp_path / 'chats.py'}:verify",
    }
    status, out, err = probe("--json", "--chat", model=str(chat), **options)
    assert status == 0, err
    quick = json.loads(out)["pass_at"][0]["value"]
    assert 0 < quick < 1
    options |= {"--chat-template-kwargs": '{"enable_thinking": true}'}
    options["--journal"] = str(tmp_path / "other.jsonl")
    found = json.loads(probe("--json", "--chat", model=str(chat), **options)[1])
    assert found["pass_at"][0]["value"] != quick
    assert found["settings"]["chat_template_kwargs"] == {"enable_thinking": True}
    assert probe("--chat", **options)[0] == 3  # this tokenizer has no chat template


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"--prompts": "nowhere.jsonl"}, "'nowhere.jsonl' cannot be read"),
        ({"--verifier": "verify"}, "names no verifier. Give math, my_module:verify"),
        (
            {"--verifier": "my_verifier:number"},
            "has no function 'number'. It has: verify, slow, fails",
        ),
        ({"--verifier": "no_such_module:f"}, "no_such_module cannot be imported"),
        ({"--verifier": "nowhere.py:f"}, "there is no file nowhere.py"),
        ({"--verifier": "my_verifier:fails"}, "The verifier 'fails' raised this."),
        ({"--prompt-column": "question"}, "line 1, has no such column"),
        ({"-n": "3"}, "num_generations=3 must be above k=4"),
        ({"--temperature": "0"}, "temperature must be above 0"),
        ({"--adapter": "my_verifier.py"}, "--adapter my_verifier.py cannot be loaded"),
        ({"--dtype": "int8"}, "invalid choice: 'int8'"),
        ({"--num-prompts": "many"}, "invalid int value: 'many'"),
        ({"--device": "nowhere"}, "--device nowhere cannot be used"),
        ({"--prompts": "my_verifier.py"}, "'my_verifier.py' cannot be read: a file of prompts"),
        ({"--chat-template-kwargs": "[1]"}, "'[1]' is no object such as"),
        ({"--rollouts-at-once": "0"}, "rollouts_at_once must be a whole number, at least 1"),
    ],
)
def test_bad_input_is_status_3_and_one_sentence(probe, options, said):
    status, out, err = probe(**options)
    assert status == 3
    assert said in err
    assert "Traceback" not in err
    assert out == ""


def test_the_prompt_column_replaces_another_prompt_and_names_bad_lines(place, tmp_path):
    path = tmp_path / "held_out.jsonl"
    path.write_text('{"prompt": "old", "question": "new", "answer": "1"}\n')
    given = argparse.Namespace(prompts=path, prompt_column="question", chat=False)
    assert held_out(given) == [{"prompt": "new", "answer": "1"}]
    for text, said in (("{", "line 1, is not JSON"), ('{"prompt": "x"}', r"it has \['prompt'\]")):
        path.write_text(text)
        with pytest.raises(ValueError, match=said):
            held_out(given)
    with pytest.raises(ValueError, match=r"nowhere\.jsonl' cannot be read"):
        held_out(argparse.Namespace(**{**vars(given), "prompts": tmp_path / "nowhere.jsonl"}))


@pytest.mark.filterwarnings("default::passk_guard.errors.PassKGuardWarning")
def test_rows_that_cannot_be_sampled_are_said_without_code(probe, place, tmp_path):
    rows = [json.loads(line) for line in (place / "held_out.jsonl").read_text().splitlines()]
    rows[5]["prompt"] = "1 2 " * 40  # the model has 16 positions
    rows[7]["prompt"] = "1 \ud83d 2 ="  # half an emoji
    rows[9]["answer"] = None
    (tmp_path / "long.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = {"--prompts": str(tmp_path / "long.jsonl"), "--num-prompts": "128"}
    status, out, err = probe("--json", **options)
    assert status == 0, err
    assert json.loads(out)["prompts"] == 125
    assert "2 of 128 rows of prompts cannot be sampled and are left out: row 5, 7." in err
    assert "the verifier 'verify' raises with row 9 of the prompts (AttributeError: " in err
    assert "warn(" not in err
    for row in rows:
        row["prompt"] = "\ud83d"
    (tmp_path / "none.jsonl").write_text("\n".join(map(json.dumps, rows)))
    status, _, err = probe(**{"--prompts": str(tmp_path / "none.jsonl")})
    assert status == 3
    assert "can be sampled. Row 0 is refused by the tokenizer: " in err
    assert "Traceback" not in err


def test_a_model_that_is_not_there_is_said(probe, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    status, _, err = probe(model=str(empty))
    assert status == 3
    assert "cannot be loaded" in err


@pytest.mark.long
def test_ctrl_c_loses_nothing(place, tmp_path):
    journal = tmp_path / "probe.jsonl"
    command = [
        sys.executable,
        "-m",
        "passk_guard",
        "probe",
        "model",
        "--prompts",
        "held_out.jsonl",
        "--verifier",
        "my_verifier:slow",
        "--max-completion-length",
        "2",
        "--num-prompts",
        "128",
        "--prompts-at-once",
        "16",
        "-k",
        "4",
        "--journal",
        str(journal),
    ]
    process = subprocess.Popen(
        command,
        cwd=place,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    for _ in range(600):
        time.sleep(0.1)
        if journal.exists() and journal.read_text().count('"batch"') >= 2:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert f"stopped. The same command goes on from {journal}" in err
    kept = journal.read_text().count('"look": "prompt"')
    assert 32 <= kept < 128
