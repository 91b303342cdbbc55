"""What is said at the start though it is no error: prompts that are trained on, doubles, cost."""

from extras import needs

needs("trl", "lightning", "datasets")

import copy
import warnings

import datasets
import pytest
import torch
from hosts import HOSTS, Lightning, lightning_trainer, own_loss, settings
from hosts import model as tiny_model
from trl_runs import GUARD, chat_rows, make_trainer, near_answer

from passk_guard import PassKGuardWarning
from passk_guard.prompts.identity import fingerprint
from passk_guard.rollouts.verifier import choose_verifier


def rows(numbers, answer="0 1"):
    """Different prompts, each of three digits."""
    return [{"prompt": " ".join(f"{i:03d}") + " =", "answer": answer} for i in numbers]


def trainer(out, name, training, **config):
    """One with that training set."""
    if name == "trl":
        return make_trainer(out, rows=training)
    found = own_loss.make_trainer(tiny_model(), str(out), steps=2, disable_tqdm=True, **config)
    found.train_dataset, found.verify = training, near_answer
    return found


def remarks(name, made, prompts, **more):
    """All that is said as the callback is attached, in one string."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PassKGuardWarning)
        made.add_callback(
            HOSTS[name].callback(made, **settings(HOSTS[name], prompts=prompts, **more))
        )
    return "\n".join(str(w.message) for w in caught)


CLEAN = range(128)  # trained on none


@pytest.mark.parametrize("name", ["trl", "transformers"])
def test_prompts_that_are_trained_on_are_counted_by_what_they_hold(tmp_path, name):
    training = datasets.Dataset.from_list(rows(range(120, 500), answer="0 2"))
    made = trainer(tmp_path, name, training)
    said = remarks(name, made, rows(CLEAN))
    assert "8 of the 128 held-out prompts are also training prompts" in said
    assert "Remove them from one of the two sets" in said
    other = trainer(tmp_path, name, training)
    assert remarks(name, other, rows(range(500, 628))) == ""


def test_chats_are_compared_too():
    pool = chat_rows(datasets.Dataset.from_list(rows(CLEAN)))
    plain = [[{"content": row["prompt"], "role": "user"}] for row in rows(CLEAN)]
    assert [fingerprint(row["prompt"]) for row in pool] == [fingerprint(chat) for chat in plain]
    assert len({fingerprint(chat) for chat in plain}) == 128


class Stream(torch.utils.data.IterableDataset):
    """Counts how often it is read."""

    read = 0

    def __iter__(self):
        for row in rows(range(512)):
            self.read += 1
            yield row


def test_a_training_stream_is_not_touched_and_the_run_is_guarded(tmp_path):
    stream = Stream()
    text = {"dispatch_batches": False}  # accelerate passes on tensors only
    made = trainer(tmp_path, "transformers", stream, accelerator_config=text)
    assert remarks("transformers", made, rows(CLEAN)) == ""
    assert stream.read == 0
    made.train()
    assert stream.read > 0
    (callback,) = (c for c in made.callback_handler.callbacks if hasattr(c, "guard"))
    assert [probe.step for probe in callback.guard.history] == [0, 2]
    assert not callback.guard.failures


@pytest.mark.parametrize("name", ["trl", "transformers"])
def test_nor_is_a_stream_of_datasets(tmp_path, name):
    read = []

    def generate():
        for row in rows(CLEAN):
            read.append(row)
            yield row

    made = trainer(tmp_path, name, datasets.Dataset.from_list(rows(range(700, 800))))
    made.train_dataset = datasets.IterableDataset.from_generator(generate)
    assert remarks(name, made, rows(CLEAN)) == ""
    assert not read


class OwnDataset(torch.utils.data.Dataset):
    """Draws random numbers as it is read, as an augmentation does."""

    column_names = ("prompt", "answer")

    def __len__(self):
        return 512

    def __getitem__(self, i):
        torch.rand(1)
        return rows([i])[0]


def test_a_training_set_of_the_user_s_own_is_not_read(tmp_path):
    made = trainer(tmp_path, "transformers", OwnDataset())
    before = torch.get_rng_state()
    assert remarks("transformers", made, rows(CLEAN)) == ""
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["transformers", "lightning"])
def test_anchors_with_the_held_out_rows_in_them(tmp_path, name):
    host, pool = HOSTS[name], rows(CLEAN)
    twins = copy.deepcopy(pool)[::-1]
    same = settings(host, prompts=pool, action="mix", anchor_prompts=twins)
    with pytest.raises(ValueError, match="anchor_prompts and prompts are the same"):
        host.run(tmp_path, steps=1, guard=same)
    some = same | {"anchor_prompts": twins[:10] + rows(range(600, 700))}
    with pytest.warns(PassKGuardWarning, match="10 of the 128 held-out prompts are also anchor"):
        host.run(tmp_path, steps=1, guard=some)


@pytest.mark.parametrize("name", HOSTS)
def test_doubles_are_identical_rows_and_no_others(tmp_path, name):
    def said(pool):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", PassKGuardWarning)
            attach(HOSTS[name], tmp_path, prompts=pool)
        return " ".join(str(w.message) for w in caught)

    assert "has 256 prompts, but only 128 different rows" in said(rows(CLEAN) * 2)
    assert said(rows(CLEAN) + rows(CLEAN, answer="0 2")) == ""


def attach(host, out, **more):
    """Put a guard together without training."""
    keywords = settings(host, **more)
    if isinstance(host, Lightning):
        module = own_loss.Module(tiny_model(), own_loss.task.make_tokenizer(), 1e-3, near_answer)
        callback, made = host.callback(**keywords), lightning_trainer(out, [], max_steps=1)
        made.strategy.connect(module)
        callback.on_fit_start(made, module)
        return callback
    training = datasets.Dataset.from_list(rows(range(700, 800)))
    return host.callback(
        trainer(out, "trl" if host is HOSTS["trl"] else "transformers", training), **keywords
    )


@pytest.mark.parametrize(
    ("dear", "message"),
    [
        (
            {"num_generations": 32},
            "num_generations=32 makes the first look about 5 times as expensive as .* of 6 .* "
            "raise reference_prompts instead",
        ),
        (
            {"reference_prompts": 512},
            "the pool has 128 prompts, and verdicts are about the pool. With fewer than 512 false",
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", HOSTS)
def test_what_is_dear_for_little_is_said_with_the_mend(tmp_path, name, dear, message):
    with pytest.warns(PassKGuardWarning, match=message) as caught:
        attach(HOSTS[name], tmp_path, prompts=rows(CLEAN), **dear)
    assert len(caught) == 1


def test_usual_settings_are_not_remarked_on(tmp_path):
    for usual in ({"num_generations": 16}, {"rollouts_per_look": 8}, {"reference_prompts": 8}):
        attach(HOSTS["trl"], tmp_path, prompts=rows(CLEAN), **usual)


# Which reward decides ------------------------------------------------------------------------


def test_a_reward_for_the_form_is_never_proposed():
    def proposed(*names):
        with pytest.raises(ValueError, match="Say which decides") as caught:
            choose_verifier([near_answer] * len(names), None, names)
        assert ", ".join(names) in str(caught.value)
        return str(caught.value).split("right: ")[1]

    assert proposed("format_reward", "solved") == "success='solved'."
    assert proposed("think_format", "solved", "exact") == "success='solved' or success='exact'."
    assert proposed("soft_length", "format") == "success='soft_length' or success='format'."
    assert proposed("format_reward", "near_answer", "xmlcount") == "success='near_answer'."


def test_a_name_that_two_rewards_have_decides_nothing():
    with pytest.raises(ValueError, match="success='<lambda>' is the name of 2 reward functions"):
        choose_verifier([lambda **_: [], lambda **_: []], "<lambda>")
    with pytest.raises(ValueError, match=r"right: the function itself as success=\.$"):
        choose_verifier([lambda **_: [], lambda **_: []], None)
    with pytest.raises(ValueError, match="right: success='solved' or the function itself as"):
        choose_verifier([near_answer] * 3, None, ["solved", "coin", "coin"])


def one_by_one(prompt, completion):
    return 1.0


class OneByOne:
    def __call__(self, **_):
        return []


def without_columns(prompts, completions):
    return [1.0] * len(completions)


@pytest.mark.parametrize(
    ("verifier", "message"),
    [
        (one_by_one, "needs 'prompt', 'completion', .*It scores whole batches"),
        (OneByOne, "reward_funcs holds the class OneByOne, .* Pass an instance"),
        (without_columns, "takes no 'answer', 'completion_ids', .*End its parameters with"),
    ],
)
@pytest.mark.parametrize("name", HOSTS)
def test_a_verifier_that_cannot_be_called_is_told_how(tmp_path, name, verifier, message):
    with pytest.raises(ValueError, match=message):
        attach(HOSTS[name], tmp_path, prompts=rows(CLEAN), reward_funcs=verifier)


def test_columns_with_the_names_of_what_is_sampled(tmp_path):
    pool = [{**row, "completions": "0 1"} for row in rows(CLEAN)]
    with pytest.raises(ValueError, match="prompts has a column 'completions', the name under"):
        attach(HOSTS["trl"], tmp_path, prompts=pool)


# Verifiers that change what they are given ---------------------------------------------------


def test_a_verifier_may_do_what_it_likes_with_what_it_gets(tmp_path):
    """It empties and changes all: neither the pool nor the next look sees it."""
    pool = [{**row, "more": {"kind": ["a"]}} for row in rows(CLEAN)]
    kept = copy.deepcopy(pool)

    def destroys(prompts, completions, completion_ids, answer, more, **_):
        scores = near_answer(completions, answer)
        assert more[0] == {"kind": ["a"]}
        assert more[0] is not more[1]
        for given in more:
            given["kind"].clear()
        for ids in completion_ids:
            ids.clear()
        for given in (prompts, completions, answer, more, completion_ids):
            given.clear()
        return scores

    for name, host in HOSTS.items():
        for verify in (near_answer, destroys):
            found = host.run(
                tmp_path / f"{name}-{verify.__name__}",
                steps=2,
                guard=settings(host, prompts=pool, reward_funcs=verify),
            ).guard
            assert not found.failures
            assert pool == kept
            if verify is near_answer:
                expected = [p.pass_at_1 for p in found.history]
        assert [p.pass_at_1 for p in found.history] == expected
        assert len(expected) == 2


def test_chat_prompts_do_not_grow_with_each_look(tmp_path):
    tokenizer = own_loss.task.make_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    pool = [{**row, "prompt": [{"role": "user", "content": row["prompt"]}]} for row in rows(CLEAN)]
    kept = copy.deepcopy(pool)

    def grows(prompts, completions, **_):
        for prompt, completion in zip(prompts, completions, strict=True):
            prompt += completion  # the whole conversation, for a judge
        return [float(len(prompt) == 2) for prompt in prompts]

    made = make_trainer(
        tmp_path,
        tokenizer=tokenizer,
        rows=chat_rows(datasets.Dataset.from_list(rows(range(200, 300)))),
        reward_funcs=grows,
        steps=2,
    )
    callback = HOSTS["trl"].callback(made, prompts=pool, **GUARD)
    made.add_callback(callback)
    with pytest.warns(PassKGuardWarning, match="no signal in 2 looks in a row"):
        made.train()
    assert pool == kept
    assert [probe.pass_at_1 for probe in callback.guard.history] == [1.0, 1.0]
