"""What `generate` samples from is told as it is, and telling it changes nothing."""

from extras import needs

needs("transformers")

import ambiguous_arithmetic as task
import pytest
import torch
from tiny import tiny_llama

from passk_guard import HFPolicy
from passk_guard.rollouts.recorded_sampling import recorded_sampling
from passk_guard.rollouts.scores import score_all
from passk_guard.runtime.isolation import isolated

ROWS = [{"prompt": "1 2 ="}, {"prompt": "3 ="}]  # of two lengths: padded on the left


def small(temperature=1.0, length=6):
    tokenizer = task.make_tokenizer()
    model = task.make_model(tokenizer, hidden=32, layers=1).eval()
    with torch.no_grad():  # far from uniform
        model.lm_head.weight.mul_(8)
    return HFPolicy(
        model, tokenizer, max_completion_length=length, temperature=temperature, rollouts_at_once=5
    )


def drawn(policy, n=8, temperature=None):
    with isolated(policy.model, seed=0):
        return policy.generate(ROWS, [0, 1], n, *([] if temperature is None else [temperature]))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_they_are_the_scores_of_what_was_sampled(temperature):
    policy = small(temperature)
    groups = drawn(policy)
    lengths = {int(n) for group in groups for n in group.completion_mask.sum(-1)}
    assert len(lengths) > 1  # some end early
    for group, scores in zip(groups, score_all(policy, groups), strict=True):
        sampled = group.completion_mask.bool()
        told = group.sampling_log_probs
        torch.testing.assert_close(told[sampled], scores[sampled], rtol=0, atol=1e-4)
        assert not told[~sampled].any()
        # And not those of a neighbour.
        assert not torch.allclose(told.roll(1, 1)[sampled], scores[sampled])


def test_telling_changes_no_sample(monkeypatch):
    policy = small()
    told = drawn(policy)
    names = set(vars(policy.model))
    with monkeypatch.context() as without:
        without.setattr("passk_guard.rollouts.recorded_sampling._that_generate", lambda _: [])
        silent = drawn(policy)
    assert set(vars(policy.model)) == names  # no method of ours is left
    for one, other in zip(told, silent, strict=True):
        assert torch.equal(one.input_ids, other.input_ids)
        assert other.sampling_log_probs is None


def test_greedy_rollouts_are_drawn_from_nothing():
    assert all(group.sampling_log_probs is None for group in drawn(small(), temperature=0.0))


def test_a_wrapper_is_told_of_once():
    pytest.importorskip("peft")
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"])).eval()
    ids = torch.randint(3, 30, (4, 3))
    with recorded_sampling(wrapped, 1.0) as calls, isolated(wrapped, seed=0):
        output = wrapped.generate(
            input_ids=ids, max_new_tokens=5, do_sample=True, top_k=0, pad_token_id=0
        )
    (call,) = calls
    assert torch.equal(call.tokens, output[:, 3:])
    assert call.of(0, output[0, 3:6].tolist()) == call.log_probs[0, :3].tolist()
    assert call.of(0, [99]) is None
    assert call.of(4, []) is None


@pytest.mark.parametrize("how", ["logits_processor", "return_dict_in_generate"])
def test_nothing_is_told_where_it_cannot_be_known(how):
    model = tiny_llama().eval()
    own = [lambda ids, scores: scores] if how == "logits_processor" else True
    with recorded_sampling(model, 1.0) as calls, isolated(model, seed=0):
        model.generate(
            input_ids=torch.ones(2, 3, dtype=torch.long), max_new_tokens=3, do_sample=True,
            pad_token_id=0, **{how: own},
        )  # fmt: skip
    assert calls == []


def test_a_model_whose_generate_takes_no_processors_is_sampled_as_ever():
    policy = small()
    original = policy.model.generate

    def generate(input_ids, attention_mask, generation_config, synced_gpus):
        return original(
            input_ids=input_ids, attention_mask=attention_mask, generation_config=generation_config
        )

    policy.model.generate = generate
    assert all(group.sampling_log_probs is None for group in drawn(policy))
