"""A row that cannot be sampled or verified costs itself, not the probe, and is said once."""

from extras import needs

needs("trl", "lightning")

import warnings

import ambiguous_arithmetic as task
import pytest
import torch
from datasets import Dataset
from guarded_bandit import make_guard
from hosts import HOSTS, settings
from tiny import BanditPolicy
from transformers import GPT2Config, GPT2LMHeadModel
from trl_runs import GUARD, chat_rows, held_out, make_trainer, near_answer, train

from passk_guard import HFPolicy, PassKGuardWarning, ProbeError
from passk_guard.integrations.trl import PassKGuardCallback
from passk_guard.prompts.pool import HeldOutPool
from passk_guard.remedies.anchors import AnchorLoss
from passk_guard.rollouts.batching import PassSize
from passk_guard.rollouts.sampling import FitRows, Sampler
from passk_guard.rollouts.verified_policy import VerifiedPolicy
from passk_guard.runtime.isolation import isolated

ALL = {**GUARD, "reference_prompts": 32}
LONG = "1 " * 20  # tokens; the tiny models have 16 positions
SAID = (
    r"2 of 32 rows of prompts cannot be sampled and are left out: row 3, 17\. Row 3 has 20 tokens"
)


def with_long_ones(rows=None, at=(3, 17), text=LONG):
    rows = (rows or held_out(32)).to_list()
    for i in at:
        rows[i]["prompt"] = text
    return rows


def gpt2():
    """Positions from a table: beyond it there is an error."""
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=32, n_embd=32, n_layer=1, n_head=2, n_positions=16)
    )


def looked(guard, left_out, of):
    """Every probe went through, of all rows but those."""
    assert not guard.failures
    assert [p.step for p in guard.history] == [0, 2, 4]
    seen = {row for probe in guard.history for row in probe.row_ids}
    assert seen.isdisjoint(left_out)
    assert len(seen) == of


@pytest.mark.parametrize("name", ["transformers", "lightning"])
def test_in_a_hosted_run(tmp_path, name):
    host = HOSTS[name]
    with pytest.warns(PassKGuardWarning, match=SAID) as told:
        found = host.run(
            tmp_path, steps=4, guard=settings(host, prompts=with_long_ones(), reference_prompts=32)
        )
    assert sum("cannot be sampled" in str(w.message) for w in told) == 1
    looked(found.guard, {3, 17}, of=30)


@pytest.mark.parametrize("name", HOSTS)
def test_rows_that_tokenizer_and_verifier_refuse(tmp_path, name):
    rows = held_out(32).to_list()
    rows[3]["prompt"] = "1 \ud83d ="  # half an emoji
    rows[17]["answer"] = None
    with pytest.warns(PassKGuardWarning) as told:
        found = HOSTS[name].run(
            tmp_path, steps=4, guard=settings(HOSTS[name], prompts=rows, reference_prompts=32)
        )
    looked(found.guard, {3, 17}, of=30)
    texts = [str(w.message) for w in told if w.category is PassKGuardWarning]
    for said in (
        "1 of 32 rows of prompts cannot be sampled and are left out: row 3. Row 3 is refused by "
        "the tokenizer: ",
        "the verifier 'near_answer' raises with row 17 of the prompts (TypeError: 'NoneType' "
        "object is not subscriptable). Its rollouts count as unscorable",
    ):
        assert sum(said in text for text in texts) == 1


def test_in_a_trl_run_where_positions_run_out(tmp_path):
    trainer = make_trainer(tmp_path, model=gpt2())
    callback = PassKGuardCallback(trainer, prompts=with_long_ones(), **ALL)
    with pytest.warns(PassKGuardWarning, match=SAID) as told:
        train(trainer, callback)
    assert sum("cannot be sampled" in str(w.message) for w in told) == 1
    looked(callback.guard, {3, 17}, of=30)


def test_in_trl_the_longest_answer_must_find_room_where_positions_run_out(tmp_path):
    trainer = make_trainer(tmp_path, model=gpt2())
    rows = with_long_ones(at=(0,), text="1 " * 14) + with_long_ones(at=(0,), text="1 " * 15)[:1]
    policy = PassKGuardCallback(trainer, prompts=rows, **GUARD).guard.policy
    fits, does_not = policy.unfit([rows[0], rows[-1]])
    assert fits is None
    assert does_not == (
        "has 15 tokens, which leaves no room for max_completion_length=2 within 16 positions"
    )
    with policy.isolated(0):
        for row in (rows[0], rows[-1]):
            (group,) = policy.generate([row], [0], 64)
            if row is rows[0]:
                policy.log_probs(*group.tokens)
        with pytest.raises(IndexError):  # as the trainer's own loss would
            policy.log_probs(*group.tokens)


def test_in_trl_rotary_positions_go_on(tmp_path):
    """TRL trains on such prompts, too."""
    trainer = make_trainer(tmp_path)
    callback = PassKGuardCallback(trainer, prompts=with_long_ones(), **ALL)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "passk-guard: .*cannot be sampled")
        train(trainer, callback)
    assert not callback.guard.failures
    assert {3, 17} & {row for probe in callback.guard.history for row in probe.row_ids}


def test_in_trl_vllms_limit_counts(tmp_path):
    """None is installed where tests run; only the count is."""
    trainer = make_trainer(tmp_path)
    policy = PassKGuardCallback(trainer, prompts=with_long_ones(), **GUARD).guard.policy
    rows = with_long_ones()[2:4]
    trainer.use_vllm = True
    assert policy.unfit(rows) == [
        None,
        "has 20 tokens, which leaves no room for an answer within 16 positions",
    ]
    trainer.args.vllm_max_model_length = 21
    assert policy.unfit(rows) == [None, None]
    trainer.args.vllm_max_model_length = 20
    assert policy.unfit(rows)[1] is not None


def test_in_trl_chat_prompts_are_counted_through_the_template(tmp_path):
    tokenizer = task.make_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }} {% endfor %}"
        "{% if add_generation_prompt %}={% endif %}"
    )
    rows = chat_rows(Dataset.from_list(with_long_ones(text="1 " * 14)))
    trainer = make_trainer(tmp_path, model=gpt2(), tokenizer=tokenizer, rows=chat_rows(held_out()))
    policy = PassKGuardCallback(trainer, prompts=rows, **GUARD).guard.policy
    short, long = policy.unfit([rows[2], rows[3]])
    assert short is None
    assert long.startswith("has 15 tokens")


def test_prompts_that_all_lack_room_are_refused_before_training(tmp_path):
    rows = with_long_ones(at=range(32))
    message = r"None of the first 32 rows of prompts can be sampled\. Row 0 has 20 tokens"
    with pytest.raises(ValueError, match=message):
        PassKGuardCallback(make_trainer(tmp_path, model=gpt2()), prompts=rows, **GUARD)
    for name in ("transformers", "lightning"):
        steps = []
        with pytest.raises(ValueError, match=message):
            HOSTS[name].run(
                tmp_path,
                guard=settings(HOSTS[name], prompts=rows),
                at=[lambda step, model, steps=steps: steps.append(step)],
            )
        assert not steps


def test_tools_are_refused_before_training(tmp_path):
    rows = [{**row, "tools": []} for row in held_out(32).to_list()]
    host = HOSTS["transformers"]
    with pytest.raises(ValueError, match="prompts has the column 'tools', but HFPolicy takes text"):
        host.run(tmp_path, guard=settings(host, prompts=rows))


class Talker(BanditPolicy):
    """Samples; the policy protocol alone, without ``unfit``."""


def test_a_policy_need_not_say_what_is_unfit():
    pool = HeldOutPool([{"prompt": str(i)} for i in range(8)])
    assert FitRows(Talker(8), pool, 4, "prompts")([5, 2]) == [5, 2]
    assert VerifiedPolicy(Talker(8), None).unfit(pool.rows) == [None] * 8


class Fussy(Talker):
    """Cannot sample the rows whose ids are given; counts what it was asked."""

    def __init__(self, contexts, unfit):
        super().__init__(contexts)
        self.bad, self.asked = {str(i) for i in unfit}, 0

    def unfit(self, rows):
        self.asked += len(rows)
        return ["is odd" if row["prompt"] in self.bad else None for row in rows]


def test_all_rows_are_looked_through_only_once_one_is_found():
    pool = HeldOutPool([{"prompt": str(i)} for i in range(100)])
    policy = Fussy(100, range(40, 60))
    fit = FitRows(policy, pool, 10, "prompts")
    assert fit([1, 2]) == [1, 2]
    assert policy.asked == 12
    message = r"20 of 100 rows .* row 40, 41, .*, 49 and 10 more\. Row 40 is odd"
    with pytest.warns(PassKGuardWarning, match=message):
        assert fit([3, 45, 4]) == [3, 4]
    assert policy.asked == 12 + 3 + 100
    assert fit([59, 60]) == [60]
    assert policy.asked == 115


def test_a_reference_of_nothing_but_unfit_rows_is_a_lost_probe():
    pool = HeldOutPool([{"prompt": str(i)} for i in range(8)])
    fit = next(i for i in range(8) if i not in pool.reference(4)[0])
    sampler = Sampler(Fussy(8, set(range(8)) - {fit}), pool, 4, 4)
    with pytest.warns(PassKGuardWarning, match="7 of 8 rows"), pytest.raises(ProbeError):
        sampler.reference(6)


def test_a_reference_that_is_taken_up_goes_on_whatever_the_new_settings_would_draw():
    one, other = make_guard(), make_guard(reference_prompts=8, seed=1)
    rows = one.probe(0).row_ids
    with pytest.warns(PassKGuardWarning, match="reference_prompts: 16 -> 8"):
        other.load_state_dict(one.state_dict())
    assert other.probe(5).row_ids == rows


def test_an_anchor_prompt_without_room_costs_itself():
    tokenizer = task.make_tokenizer()
    model = task.make_model(tokenizer, hidden=32, layers=1)
    policy = VerifiedPolicy(
        HFPolicy(model, tokenizer, max_completion_length=2), near_answer, module=model
    )
    pool = HeldOutPool(with_long_ones())
    loss = AnchorLoss(policy, pool, 8, 16, lambda seed: isolated(model, seed=seed), PassSize())
    with pytest.warns(PassKGuardWarning, match="2 of 32 rows of anchor_prompts cannot be sampled"):
        gradients = [loss.gradient(0), loss.gradient(1)]  # all 32
    assert all(torch.stack([g.norm() for g in found.values()]).any() for found in gradients)
