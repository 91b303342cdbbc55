"""Second temperature, groups, Adam's metric, re-scoring within a budget: in real GRPO runs."""

from extras import needs

needs("trl")

import pytest
from trl_runs import GUARD, held_out, losses, make_trainer, same_weights, train, weights

from passk_guard.integrations.trl import PassKGuardCallback

EVERYTHING = {
    "report_temperature": 0,
    "group_by": "kind",
    "weight_by": "traffic",
    "metric": "adam",
}


def rows(count=128):
    """Held-out rows with a group and a weight."""
    return [
        {**row, "kind": "ab"[i % 2], "traffic": 1.0 + i % 3}
        for i, row in enumerate(held_out(count))
    ]


def test_everything_on_is_still_bit_identical(tmp_path):
    alone = train(make_trainer(tmp_path, steps=8, dropout=0.1))
    trainer = make_trainer(tmp_path, steps=8, dropout=0.1)
    callback = PassKGuardCallback(trainer, prompts=rows(), **GUARD, **EVERYTHING)
    guarded = train(trainer, callback)
    assert not callback.guard.failures
    assert same_weights(weights(alone), weights(guarded))
    assert losses(alone) == losses(guarded)
    first, *later = callback.guard.history
    assert first.cosine is None  # Adam has no second moments yet: the reference is Euclidean
    assert all(p.alignment is not None for p in callback.guard.history)
    assert all(set(p.groups) == {"a", "b"} for p in later)
    assert all(0 <= p.served_pass_at_1 <= 1 for p in callback.guard.history)
    assert first.training_pass_at_1 is None
    rewards = [e["rewards/near_answer/mean"] for e in alone.state.log_history if "loss" in e]
    assert later[0].training_pass_at_1 == pytest.approx(sum(rewards[:2]) / 2, abs=1e-6)


def test_greedy_pass_at_1_is_what_greedy_decoding_gives(tmp_path):
    import torch

    trainer = make_trainer(tmp_path)
    pool = held_out(16)
    callback = PassKGuardCallback(trainer, prompts=pool, report_temperature=0, **GUARD)
    probe = callback.guard.probe(0)
    model, tokenizer = trainer.model.eval(), trainer.processing_class
    ids = tokenizer(list(pool["prompt"]), return_tensors="pt")["input_ids"]
    for _ in range(2):
        with torch.no_grad():
            best = model(input_ids=ids).logits[:, -1].argmax(-1)
        ids = torch.cat([ids, best[:, None]], 1)
    from trl_runs import near_answer

    completions = tokenizer.batch_decode(ids[:, -2:], skip_special_tokens=True)
    right = near_answer(completions, pool["answer"])
    assert probe.served_pass_at_1 == pytest.approx(sum(right) / 16)


def test_a_budget_with_rescoring_is_bit_identical_and_says_its_plan(tmp_path, caplog):
    caplog.set_level("INFO", logger="passk_guard")
    alone = train(make_trainer(tmp_path, steps=40, dropout=0.1))
    trainer = make_trainer(tmp_path, steps=40, dropout=0.1)
    settings = {**GUARD, "every": None, "max_overhead": 0.6}
    callback = PassKGuardCallback(trainer, prompts=held_out(), **settings)
    guarded = train(trainer, callback)
    guard = callback.guard
    assert guard.rescores
    assert not guard.failures
    assert same_weights(weights(alone), weights(guarded))
    assert losses(alone) == losses(guarded)
    plan = [r.getMessage() for r in caplog.records if "smallest loss" in r.getMessage()]
    assert len(plan) == 1
    assert "training steps" in plan[0]
    assert any("of the run's time" in r.getMessage() for r in caplog.records)


def test_adams_metric_refuses_another_optimizer_before_training(tmp_path):
    trainer = make_trainer(tmp_path, optim="sgd")
    trainer.add_callback(PassKGuardCallback(trainer, prompts=held_out(), metric="adam", **GUARD))
    with pytest.raises(ValueError, match=r"metric='adam' reads .*SGD"):
        trainer.train()
    assert trainer.state.global_step == 0
