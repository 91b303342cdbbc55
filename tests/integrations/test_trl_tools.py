"""Tool calls through GRPOTrainer's own loop: what a tool wrote is never scored as the policy's."""

from extras import needs

needs("trl")

import importlib.util
import inspect

import ambiguous_arithmetic as task
import pytest
import torch
from trl import GRPOTrainer
from trl_runs import (
    GUARD,
    chat_rows,
    held_out,
    losses,
    make_trainer,
    near_answer,
    same_weights,
    train,
    weights,
)

from passk_guard.integrations.trl import PassKGuardCallback

pytestmark = [
    pytest.mark.skipif(
        "environment_factory" not in inspect.signature(GRPOTrainer).parameters
        or importlib.util.find_spec("transformers.utils.chat_parsing") is None,
        reason="this TRL has no tools, or this transformers no response templates",
    ),
    pytest.mark.filterwarnings("ignore:You are using 'environment_factory'"),  # "experimental"
]

ANSWER, RESULT = "<0>", "<1>"  # tokens that open an assistant's turn, and a tool's
TEMPLATE = """\
{% for m in messages %}\
{% if m.role == 'user' %}{{ m.content }} \
{% elif m.role == 'tool' %}<1> {{ m.content }} \
{% else %}<0> {{ m.content }} \
{% for c in m.tool_calls or [] %}{{ c.function.name }} {{ c.function.arguments }} {% endfor %}\
<eos> {% endif %}\
{% endfor %}\
{% if add_generation_prompt %}<0> {% endif %}"""


def tokenizer():
    """Every token ``<2>`` to ``<17>`` calls the tool with what follows: untrained models do."""
    made = task.make_tokenizer()
    made.chat_template = TEMPLATE
    call = {"name": "count", "arguments": {"text": "{content}"}}
    made.response_template = {
        "defaults": {"role": "assistant"},
        "start_anchor": ANSWER,
        "fields": {
            "tool_calls": {
                "open_pattern": r"<([2-9]|1\d)>",
                "close_pattern": r"<eos>|$",
                "repeats": True,
                "content": "text",
                "transform": {"type": "function", "function": call},
            },
            "content": {"close_pattern": r"<eos>|$", "content": "text"},
        },
    }
    return made


def count(text: str) -> str:
    """Count words.

    Args:
        text: the words.

    Returns:
        How many there are, up to nine.
    """
    return str(min(len(text.split()), 9))


def last_answer(completions, answer, **_):
    return near_answer([c[-1]["content"].strip() for c in completions], answer)


class Desk:
    """An environment whose only method is the same tool."""

    def reset(self, **_):
        return None

    def count(self, text: str) -> str:
        """Count words.

        Args:
            text: the words.

        Returns:
            How many there are, up to nine.
        """
        return count(text)


SOURCES = {"tools": {"tools": [count]}, "environment": {"environment_factory": Desk}}


def new(tmp_path, source="tools"):
    return make_trainer(
        tmp_path,
        steps=3,
        dropout=0.1,
        reward_funcs=last_answer,
        rows=chat_rows(task.make_rows(64)),
        tokenizer=tokenizer(),
        parts=SOURCES[source],
        max_completion_length=8,
    )


def guarded(tmp_path, source="tools", pass1_weight=None, **settings):
    trainer = new(tmp_path, source)
    rows = chat_rows(held_out())
    callback = PassKGuardCallback(trainer, prompts=rows, **GUARD, **settings)
    if pass1_weight is not None:
        callback.guard.objective.pass1_weight = pass1_weight
    train(trainer, callback)
    assert not callback.guard.failures
    assert [probe.step for probe in callback.guard.history] == [0, 2]
    assert 0 < callback.guard.history[0].pass_at_1 < 1
    return trainer, callback.guard


@pytest.mark.parametrize("source", SOURCES)
def test_runs_with_tools_are_guarded_and_bit_identical(tmp_path, source):
    alone = train(new(tmp_path, source))
    assert any(entry.get("tools/call_frequency", 0) > 0 for entry in alone.state.log_history)
    watched, _ = guarded(tmp_path, source)
    assert same_weights(weights(alone), weights(watched))
    assert losses(alone) == losses(watched)


def test_the_objective_is_in_force_beside_tools(tmp_path):
    alone = train(new(tmp_path))
    changed, guard = guarded(tmp_path, objective="pkpo")
    assert guard.objective is not None
    assert not same_weights(weights(alone), weights(changed))
    kept, guard = guarded(tmp_path, objective="pkpo", pass1_weight=1.0)
    assert guard.objective is not None
    assert same_weights(weights(alone), weights(kept))


@pytest.mark.parametrize("source", SOURCES)
def test_what_a_tool_wrote_is_read_but_not_scored(tmp_path, source):
    trainer = new(tmp_path, source)
    callback = PassKGuardCallback(trainer, prompts=chat_rows(held_out()), **GUARD)
    policy, pool = callback.guard.policy, callback.guard.pool
    ids = pool.draw(16)
    with policy.isolated(0):
        groups = policy.generate([pool.rows[i] for i in ids], ids, 8)
        scores = [policy.log_probs(*group.tokens).detach() for group in groups]
    trainer.model.eval()
    calls = 0
    for group, score in zip(groups, scores, strict=True):
        theirs, _, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model, group.input_ids, group.attention_mask, group.input_ids.shape[1] - 1
        )
        mask = group.completion_mask[:, 1:].bool()
        torch.testing.assert_close(score[:, 1:][mask], theirs[mask], rtol=0, atol=1e-5)
        assert not score[:, 1:][~mask].any()
        for tokens, sampled in zip(group.input_ids, group.completion_mask.bool(), strict=True):
            first, last = sampled.nonzero()[[0, -1], 0]
            inside = tokens[first : last + 1][~sampled[first : last + 1]]
            if len(inside):  # the tool's turn, and the opening of the policy's next
                calls += 1
                opening, result, answer = trainer.processing_class.decode(inside).split()
                assert (opening, answer) == (RESULT, ANSWER)
                assert result.isdigit()
    assert calls > 3
