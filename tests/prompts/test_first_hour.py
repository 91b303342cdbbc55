"""What a new user gets wrong in the first hour: it works, or is one clear sentence at once."""

from extras import needs

needs("trl", "lightning", "datasets")

import re

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from hosts import HOSTS, own_loss, settings
from hosts import model as tiny_model
from trl_runs import GUARD, chat_rows, held_out, make_trainer

from passk_guard import PassKGuardWarning
from passk_guard.integrations import transformers as for_transformers
from passk_guard.integrations import trl as for_trl
from passk_guard.prompts.rows import check_texts, rows_from

NAN, INF = float("nan"), float("inf")


@pytest.fixture(params=HOSTS)
def host(request):
    return HOSTS[request.param]


def refused(host, out, message, **bad):
    """The error comes before the first step, and is the guard's own."""
    steps = []
    with pytest.raises(ValueError, match=message):
        host.run(out, guard=settings(host) | bad, at=[lambda step, model: steps.append(step)])
    assert not steps


# Arguments beside the settings ---------------------------------------------------------------


def plain(value):
    """A test's name, the same on every worker: no addresses."""
    return re.sub(r" at 0x\w+", "", str(value))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"success_threshold": NAN}, "success_threshold must be a finite number"),
        ({"success_threshold": "1"}, "success_threshold must be a finite number"),
        ({"success_threshold": True}, "success_threshold must be a finite number"),
        ({"temperature": NAN}, "temperature must be above 0, got nan"),
        ({"temperature": INF}, "temperature must be above 0, got inf"),
        ({"temperature": "1"}, "temperature must be above 0, got '1'"),
        ({"temperature": True}, "temperature must be above 0, got True"),
    ],
    ids=plain,
)
def test_sampling_and_threshold(tmp_path, host, bad, message):
    refused(host, tmp_path, message, **bad)


@pytest.mark.parametrize("name", ["transformers", "lightning"])
@pytest.mark.parametrize("value", [0, 1.5, NAN, "8", True])
@pytest.mark.parametrize("argument", ["max_completion_length", "anchor_batch_size"])
def test_counts_of_trainers_without_rollouts(tmp_path, name, argument, value):
    message = f"{argument} must be a whole number, at least 1, got {value!r}"
    refused(HOSTS[name], tmp_path, message, **{argument: value})


ANCHORS = {"action": "mix", "anchor_prompts": []}


@pytest.mark.parametrize("name", ["transformers", "lightning"])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (ANCHORS, "anchor_prompts is empty. Pass training prompts"),
        (ANCHORS | {"anchor_prompts": [None]}, r"anchor_prompts\[0\] holds None as prompt"),
        (
            ANCHORS | {"anchor_prompts": ["1 2 ="]},
            "but the anchor rows .* column to anchor_prompts",
        ),
        (ANCHORS | {"anchor_prompts": {"a": []}}, "Pass one of them as anchor_prompts="),
        (
            {"policy": lambda model, tokenizer: None},
            r"policy=.* is called as f\(model\), but: miss",
        ),
    ],
    ids=plain,
)
def test_what_only_trainers_without_rollouts_take(tmp_path, name, bad, message):
    refused(HOSTS[name], tmp_path, message, **bad)


# Prompts -------------------------------------------------------------------------------------


class Streamed(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(held_out())

    def __len__(self):
        return 128


def chats(count=64, **message):
    return [{**row, "prompt": [message or {"role": "user", "content": "1"}]} for row in rows(count)]


def rows(count=64, **first):
    found = held_out(count).to_list()
    found[3] |= first
    return found


BAD_PROMPTS = {
    "none": (list, "prompts is empty"),
    "streamed": (lambda: held_out().to_iterable_dataset(), r"streams its rows.*list\(itertools"),
    "streamed by torch": (Streamed, r"got Streamed, which streams .*prompts=list\(itertools"),
    "generator": (lambda: (row for row in held_out()), "got generator, which streams"),
    "splits": (
        lambda: datasets.DatasetDict({"a": held_out(), "b": held_out()}),
        "got a DatasetDict of several: 'a', 'b'. Pass one of them as prompts=",
    ),
    "columns": (lambda: held_out().to_dict(), "a dict of columns. Pass rows: .*from_dict"),
    "text": (lambda: "held_out.json", "got str 'held_out.json'. Pass a list"),
    "None in a Dataset": (
        lambda: datasets.Dataset.from_list(rows(prompt=None)),
        r"prompts\[3\] holds None as prompt",
    ),
    "empty in a Dataset": (
        lambda: datasets.Dataset.from_list(rows(prompt="")),
        r"prompts\[3\] holds '' as prompt",
    ),
    "missing in a DataFrame": (
        lambda: pd.DataFrame(rows(prompt=None)),
        r"prompts\[3\] holds (nan|None) as prompt",
    ),
    "a column without a name": (
        lambda: [{**row, 3: 4} for row in rows()],
        r"prompts\[0\] has the column 3\. Column names must be strings",
    ),
    "nothing but space": (lambda: rows(prompt="  "), r"prompts\[3\] is '  ', which has no tokens"),
    "an odd row": (
        lambda: rows(kind="x"),
        r"prompts\[3\] and the first row .*\['kind'\] is in one",
    ),
    "one chat": (
        lambda: [{"role": "user", "content": "1"}] * 8,
        r"prompts\[0\] has no 'prompt' key.*It is a message: a chat is a list of them",
    ),
    "chat and text": (
        lambda: chats()[:2] + rows(62),
        r"mixes chats and plain text: prompts\[0\] is a chat, prompts\[2\] plain text",
    ),
    "chat without a template": (chats, "holds chats, but the tokenizer has no chat template"),
    "no role": (lambda: chats(content="1"), r"prompts\[0\] holds .* which is not a chat message"),
    "no content": (lambda: chats(role="user"), r"prompts\[0\] has a message of 'user' without"),
    "no messages": (
        lambda: [{**row, "prompt": ["1", "2"]} for row in rows()],
        r"prompts\[0\] holds '1', which is not a chat message",
    ),
}


@pytest.mark.parametrize("case", BAD_PROMPTS)
def test_prompts_that_cannot_be_used_are_named(case):
    make, message = BAD_PROMPTS[case]
    with pytest.raises(ValueError, match=message):
        check_texts(rows_from(make()), own_loss.task.make_tokenizer())


@pytest.mark.parametrize("case", ["streamed", "None in a Dataset", "chat without a template"])
def test_every_trainer_refuses_bad_prompts_before_the_first_step(tmp_path, host, case):
    make, message = BAD_PROMPTS[case]
    refused(host, tmp_path, message, prompts=make())


def test_a_chat_that_the_template_refuses_costs_itself_and_is_named(tmp_path):
    tokenizer = own_loss.task.make_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0]['role'] != 'user' %}{{ raise_exception('user first') }}{% endif %}"
        "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    )
    refused = [{"role": "assistant", "content": "1"}]
    pool = [{**row, "prompt": refused} if i == 5 else row for i, row in enumerate(chats())]
    nothing = [{**row, "prompt": refused} for row in pool]
    why = "Row {} is refused by the tokenizer: TemplateError: user first"
    rows = chat_rows(held_out(64))
    trainers = [
        make_trainer(tmp_path, tokenizer=tokenizer, rows=rows, reward_funcs=even),
        own_loss.make_trainer(tiny_model(), str(tmp_path), steps=1),
    ]
    trainers[1].processing_class = tokenizer
    for trainer, of in zip(trainers, (for_trl, for_transformers), strict=True):
        keywords = {**GUARD, "reward_funcs": even}
        with pytest.raises(ValueError, match=why.format(0)):
            of.PassKGuardCallback(trainer, **{**keywords, "prompts": nothing})
        every = {**keywords, "prompts": pool, "reference_prompts": len(pool)}
        guard = of.PassKGuardCallback(trainer, **every).guard
        with pytest.warns(PassKGuardWarning, match=f"left out: row 5. {why.format(5)}"):
            found = guard.probe(0)
        assert len(found.row_ids) == len(pool) - 1
        assert 5 not in found.row_ids


def even(completions, **_):
    return [chat[-1]["content"][:1] in ("0", "2", "4", "6", "8") for chat in completions]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"prompt": "1 2 ="}\n\n{"prompt": \n',
            "line 3, is not JSON: Expecting value at column 12",
        ),
        ('{"prompt": "1 2 ="}\n7\n', "line 2, holds 7, which is not a row"),
        ('\n{"question": "1 2 ="}\n', "line 2, has no 'prompt' key"),
        ('{"prompt": "1 2 ="}\n\n{"prompt": ""}\n', "line 3, holds '' as prompt"),
        ("\n", "is empty: the file has no rows"),
        (None, "cannot be read: .*No such file"),
        (b"\xff\xfe", "cannot be read: .*utf-8"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, text, message):
    path = tmp_path / "held_out.jsonl"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=rf"held_out\.jsonl.*{message}"):
        rows_from(str(path))


class ByNumber(torch.utils.data.Dataset):
    """A dataset of the user's own, which never says where it ends but by its length."""

    def __len__(self):
        return 32

    def __getitem__(self, i):
        return held_out(128)[i]


@pytest.mark.parametrize(
    "prompts",
    [
        lambda: pd.DataFrame(held_out().to_list())[::-1],
        lambda: held_out().data.table,
        lambda: tuple(held_out().to_list()),
        ByNumber,
    ],
    ids=["DataFrame", "Table", "tuple", "Dataset of torch"],
)
def test_other_kinds_of_rows_work(prompts):
    rows = rows_from(prompts())
    assert len(rows) in (128, 32)
    assert set(rows[0]) == {"prompt", "answer"}


def test_a_run_takes_a_dataset_of_the_users_own(tmp_path, host):
    guard = host.run(tmp_path, steps=1, guard=settings(host, prompts=ByNumber())).guard
    assert len(guard.pool) == 32
    assert len(guard.history) == 1
    assert not guard.failures


def test_chats_of_a_parquet_file_come_as_lists():
    frame = pd.DataFrame({"prompt": [np.array([{"role": "user", "content": "1"}])] * 4})
    assert rows_from(frame)[0] == {"prompt": [{"role": "user", "content": "1"}]}


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            lambda: {"a": held_out(), "b": held_out()},
            r"trainer\.eval_dataset must be .* several: 'a', 'b'\. Pass one of them as prompts=",
        ),
        (
            lambda: held_out().to_iterable_dataset(),
            r"trainer\.eval_dataset must be .* streams its rows.* prompts=list\(itertools",
        ),
        (
            lambda: held_out().rename_column("prompt", "text"),
            r"no prompts were passed.*trainer\.eval_dataset has no 'prompt' column, .* Or pass ",
        ),
    ],
    ids=["dict", "streamed", "no prompt"],
)
@pytest.mark.parametrize("name", ["trl", "transformers"])
def test_the_trainer_s_own_eval_dataset_is_named_where_it_cannot_stand_in(
    tmp_path, name, own, message
):
    trainer = make_trainer(tmp_path)
    if name == "transformers":
        trainer = own_loss.make_trainer(tiny_model(), str(tmp_path), steps=1)
    trainer.eval_dataset = own()
    keywords = {**GUARD, **HOSTS[name].settings}
    with pytest.raises(ValueError, match=message):
        HOSTS[name].callback(trainer, **keywords)
    if "has no 'prompt'" in message:
        trainer.add_callback(HOSTS[name].callback)  # the class, of which transformers makes one
        with pytest.raises(ValueError, match=message):
            trainer.train()
        trainer.remove_callback(HOSTS[name].callback)
    assert len(HOSTS[name].callback(trainer, prompts=held_out(), **keywords).guard.pool) == 128
