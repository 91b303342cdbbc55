"""HFPolicy samples from the very distribution that it scores, whatever the model is set to."""

from extras import needs

needs("transformers")

import re

import ambiguous_arithmetic as task
import pytest
import torch
from tiny import tiny_llama

from passk_guard import HFPolicy, ProbeError, probe_policy
from passk_guard.runtime.isolation import isolated

CHAT = (
    "{{ bos_token }} {% for m in messages %}{{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}={% endif %}"
)


def make(**settings):
    tokenizer = task.make_tokenizer()
    model = task.make_model(tokenizer, hidden=32, layers=1)
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    return model, tokenizer


def sampled_shares(policy, model, n=4000, temperature=None):
    """Share of each first token among n rollouts of one prompt."""
    with isolated(model, seed=0):
        more = () if temperature is None else (temperature,)
        (group,) = policy.generate([{"prompt": "1 2 ="}], [0], n, *more)
    first = group.input_ids[:, 3]
    return torch.bincount(first, minlength=32).double() / n


def exact_shares(model, tokenizer, temperature=1.0):
    model.eval()
    ids = tokenizer("1 2 =", return_tensors="pt")["input_ids"]
    return (model(ids).logits[0, -1].double() / temperature).softmax(-1).detach()


FILTERS = {
    "top_k": 2,
    "top_p": 0.3,
    "repetition_penalty": 3.0,
    "suppress_tokens": [5, 6, 7, 8],
    "temperature": 0.2,
    "num_beams": 2,
}


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_sampling_is_from_the_plain_softmax_whatever_the_generation_config_says(temperature):
    model, tokenizer = make(**FILTERS)
    with torch.no_grad():  # far from uniform, so that temperature and filters matter
        model.lm_head.weight.mul_(20)
    policy = HFPolicy(model, tokenizer, max_completion_length=1, temperature=temperature)
    exact = exact_shares(model, tokenizer, temperature)
    off = (sampled_shares(policy, model) - exact).abs().sum() / 2
    assert off < 0.05  # total variation; 32 outcomes and 4000 draws give .02 to .04
    assert {name: getattr(model.generation_config, name) for name in FILTERS} == FILTERS


def test_transformers_own_filter_fails_the_same_comparison():
    model, tokenizer = make(top_k=2)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    ids = tokenizer("1 2 =", return_tensors="pt")["input_ids"]
    torch.manual_seed(0)
    filtered = model.generate(
        ids.repeat(4000, 1), do_sample=True, max_new_tokens=1, pad_token_id=0
    )[:, -1]
    shares = torch.bincount(filtered, minlength=32).double() / 4000
    assert (shares - exact_shares(model, tokenizer)).abs().sum() / 2 > 0.1


def test_log_probs_belong_to_the_samples():
    """The same per-token numbers as a plain forward over prompt and completion."""
    model, tokenizer = make()
    policy = HFPolicy(model, tokenizer, max_completion_length=3, temperature=0.7)
    with isolated(model, seed=0):
        groups = policy.generate([{"prompt": "1 2 ="}, {"prompt": "3 ="}], [4, 9], 5)
        assert [group.row for group in groups] == [4, 9]
        for group in groups:
            scores = policy.log_probs(*group.tokens)
            for i in range(5):
                length = int(group.attention_mask[i].sum())
                ids = group.input_ids[i : i + 1, :length]
                plain = (model(ids).logits[0, :-1] / 0.7).log_softmax(-1)
                wanted = plain.gather(-1, ids[0, 1:, None])[:, 0]
                mask = group.completion_mask[i, 1:length].bool()
                assert torch.allclose(scores[i, 1:length][mask], wanted[mask], atol=1e-5)


def test_greedy_is_the_argmax():
    model, tokenizer = make()
    policy = HFPolicy(model, tokenizer, max_completion_length=1)
    shares = sampled_shares(policy, model, n=8, temperature=0)
    assert shares[exact_shares(model, tokenizer).argmax()] == 1


def test_completions_end_with_their_first_end_of_sequence_token():
    model, tokenizer = make()
    eos = tokenizer.eos_token_id
    with torch.no_grad():
        model.lm_head.weight[eos] = 0.0
        model.lm_head.weight[eos] += 2 * model.lm_head.weight.abs().mean()
    policy = HFPolicy(model, tokenizer, max_completion_length=8)
    with isolated(model, seed=0):
        (group,) = policy.generate([{"prompt": "1 2 ="}], [0], 200)
    lengths = set()
    for ids, mask, text in zip(
        group.input_ids, group.completion_mask.bool(), group.completions, strict=True
    ):
        completion = ids[mask].tolist()
        lengths.add(len(completion))
        assert eos not in completion[:-1]
        assert len(completion) == 8 or completion[-1] == eos
        assert "<eos>" not in text
    assert {1, 8} <= lengths  # an empty answer, and a cut one


@pytest.mark.parametrize("pad", ["<pad>", "<eos>"])
@pytest.mark.parametrize("eos", ["<eos>", None])
def test_an_answer_ends_with_the_token_that_completes_a_stop_string(eos, pad):
    """And scores cover what was sampled up to there, whatever generate fills the batch with."""
    model, tokenizer = make(stop_strings=["5", "1 2"])
    tokenizer.eos_token, tokenizer.pad_token = eos, pad
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    policy = HFPolicy(model, tokenizer, max_completion_length=6)
    with isolated(model, seed=0):
        (group,) = policy.generate([{"prompt": "1 2 ="}], [0], 200)
    ended = {"5": 0, "1 2": 0, "<eos>": 0, "": 0}
    for ids, mask, cut in zip(*group.tokens[::2], group.truncated.tolist(), strict=True):
        answer = ids[mask.bool()].tolist()
        ends = [end for end in ended if end and end in tokenizer.decode(answer)]
        before = tokenizer.decode(answer[:-1])
        assert not any(end in before for end in ended if end and (eos or end != "<eos>"))
        assert cut == (not ends or (ends == ["<eos>"] and not eos))
        assert not cut or len(answer) == 6
        ended[ends[0] if ends else ""] += 1
    assert min(ended.values()) > 0
    with torch.no_grad():
        scores = policy.log_probs(*group.tokens)
    assert torch.allclose(scores, group.told, atol=1e-5)
    assert policy.settings["stop_strings"] == ["5", "1 2"]


def test_the_tokenizers_own_end_of_sequence_counts_beside_the_models():
    model, tokenizer = make(eos_token_id=[4, 5])
    policy = HFPolicy(model, tokenizer, max_completion_length=6)
    with isolated(model, seed=0):
        (group,) = policy.generate([{"prompt": "1 2 ="}], [0], 100)
    last = [ids[mask.bool()][-1].item() for ids, mask in zip(*group.tokens[::2], strict=True)]
    ends = {4, 5, tokenizer.eos_token_id}
    assert ends <= set(last)
    assert [token not in ends for token in last] == group.truncated.tolist()


def test_max_length_counts_prompt_and_answer_unless_new_tokens_are_given():
    model, tokenizer = make(max_length=6)
    policy = HFPolicy(model, tokenizer)
    with isolated(model, seed=0):
        (group,) = policy.generate([{"prompt": "1 2 ="}], [0], 20)
        (longer,) = HFPolicy(model, tokenizer, max_completion_length=9).generate(
            [{"prompt": "1 2 ="}], [0], 20
        )
    assert group.input_ids.shape[1] == 6
    assert longer.input_ids.shape[1] == 12
    assert policy.unfit([{"prompt": "1 2 3 4 5 6"}]) == [
        "has 6 tokens, which leaves no room for an answer within max_length=6 of its generation "
        "config"
    ]


def test_chat_messages_go_through_the_template_with_one_bos_only():
    model, tokenizer = make()
    tokenizer.chat_template = CHAT
    tokenizer.bos_token = "<0>"
    policy = HFPolicy(model, tokenizer, max_completion_length=2)
    chat = [{"role": "user", "content": "1 2"}]
    turns = [*chat, {"role": "assistant", "content": "3"}, {"role": "user", "content": "4 5"}]
    with isolated(model, seed=0):
        groups = policy.generate([{"prompt": chat}, {"prompt": turns}], [0, 1], 3)
    words = tokenizer.convert_ids_to_tokens(groups[0].input_ids[0][:4].tolist())
    assert words == ["<0>", "1", "2", "="]
    words = tokenizer.convert_ids_to_tokens(groups[1].input_ids[0][:7].tolist())
    assert words == ["<0>", "1", "2", "3", "4", "5", "="]
    assert groups[0].completions[0][0]["role"] == "assistant"
    assert isinstance(groups[0].completions[0][0]["content"], str)


def test_a_chat_template_gets_what_it_takes_as_argument_or_column():
    model, tokenizer = make()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }} {% endfor %}"
        "{% if enable_thinking is not defined or enable_thinking %}<17>{% else %}={% endif %}"
    )
    chat = [{"role": "user", "content": "1 2"}]
    columns = ({}, {"chat_template_kwargs": None}, {"chat_template_kwargs": {"enable_thinking": 1}})
    rows = [{"prompt": chat, **column} for column in columns]

    def prompts(**given):
        policy = HFPolicy(model, tokenizer, max_completion_length=1, **given)
        with isolated(model, seed=0):
            groups = policy.generate(rows, range(3), 2)
        return [tokenizer.decode(group.input_ids[0, :3]) for group in groups], policy.settings

    assert prompts()[0] == ["1 2 <17>"] * 3
    quick = {"enable_thinking": False}
    found, settings = prompts(chat_template_kwargs=quick)
    assert found == ["1 2 =", "1 2 =", "1 2 <17>"]
    assert settings["chat_template_kwargs"] == quick  # a journal of others is another probe's
    with pytest.raises(ValueError, match="chat_template_kwargs must hold values by name"):
        prompts(chat_template_kwargs=["enable_thinking"])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "1 2 =", "tools": []}, "has tools, which HFPolicy cannot sample"),
        ({"prompt": [{"role": "tool", "content": "3"}]}, "tools or images"),
        ({"prompt": [{"role": "user", "content": [{"type": "image"}]}]}, "tools or images"),
        ({"prompt": "1 " * 20}, "row 7 of prompts has 20 tokens, which leaves no room"),
    ],
)
def test_what_it_cannot_sample_is_refused_by_row(row, message):
    model, tokenizer = make()
    with pytest.raises(ProbeError, match=message):
        HFPolicy(model, tokenizer).generate([row], [7], 2)


def test_length_is_capped_by_the_models_positions():
    model, tokenizer = make()
    policy = HFPolicy(model, tokenizer)  # 256 tokens by default, of 16 positions
    with isolated(model, seed=0):
        (group,) = policy.generate([{"prompt": "1 2 ="}], [0], 8)
    assert group.input_ids.shape[1] <= 16


def test_a_prompt_that_nearly_fills_the_positions_shortens_its_own_answers_only():
    model, tokenizer = make()  # 16 positions
    policy = HFPolicy(model, tokenizer, max_completion_length=8)
    texts = ["1 2 =", " ".join("1" * 14), "3 ="]
    with isolated(model, seed=0):
        groups = policy.generate([{"prompt": text} for text in texts], [0, 1, 2], 20)
    for group, text, longest in zip(groups, texts, (8, 2, 8), strict=True):
        prompt = group.input_ids[:, : len(text.split())]
        assert tokenizer.batch_decode(prompt) == [text] * 20
        assert group.completion_mask.sum(1).max() == longest


def test_a_custom_generate_that_ends_in_train_mode_leaves_no_dropout():
    model, tokenizer = make()
    generate = model.generate

    def generates(*args, **kwargs):
        found = generate(*args, **kwargs)
        model.train()
        return found

    model.generate = generates
    policy = HFPolicy(model, tokenizer, max_completion_length=2)
    with isolated(model, seed=0):
        policy.generate([{"prompt": "1 2 ="}], [0], 4)
        assert not any(m.training for m in model.modules())


def test_bad_arguments():
    model, tokenizer = make()
    with pytest.raises(ValueError, match="must be a causal LM that generates, got Linear"):
        HFPolicy(torch.nn.Linear(2, 2), tokenizer)
    with pytest.raises(ValueError, match="tokenizer must be a tokenizer, got NoneType"):
        HFPolicy(tiny_llama(), None)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        HFPolicy(model, tokenizer, temperature=0)


def test_where_nothing_is_right_cut_answers_are_said(tmp_path):
    model, tokenizer = make()
    policy = HFPolicy(model, tokenizer, max_completion_length=2)
    rows = task.make_rows(8).to_list()
    given = {"k": 2, "prompts_at_once": 4, "journal": tmp_path / "probe.jsonl"}
    for prompts in (4, 8):  # the second time from the journal
        verify = lambda completions, **_: [0.0] * len(completions)  # noqa: E731
        found = probe_policy(policy, rows, verify, num_prompts=prompts, **given)
        assert re.search(
            r"No signal: nothing was right.*\. \d+% of the rollouts were cut at the length limit, "
            r"2 tokens, before they ended\. Raise max_completion_length first",
            found.sentence,
        )
    assert 0.5 < found.record()["truncated"] < 1
    assert found.reading.truncation.share == found.record()["truncated"]
