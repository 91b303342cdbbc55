"""A probe stays a probe whatever a call of TRL's generation leaves behind."""

from extras import needs

needs("trl")

import pytest
import torch
from trl import GRPOConfig
from trl_runs import GUARD, held_out, losses, make_trainer, same_weights, train, weights

from passk_guard.integrations.trl import PassKGuardCallback

IN_TRAIN_MODE = "use_transformers_continuous_batching"
BLOCKS = {"num_blocks": 32, "max_batch_tokens": 64, "page_size": 32}
SMALL = {**GUARD, "reference_prompts": 4}


def continuous(tmp_path, **config):
    """Continuous batching, after which TRL puts the model into train mode.

    Where the installed release has none that runs on a CPU, plain generation that ends alike.
    """
    if IN_TRAIN_MODE in GRPOConfig.__dataclass_fields__:
        more = {IN_TRAIN_MODE: True, "transformers_continuous_batching_config": dict(BLOCKS)}
        return make_trainer(tmp_path, dropout=0.5, **more, **config)
    trainer = make_trainer(tmp_path, dropout=0.5, **config)
    generate = trainer.model.generate

    def generates(*args, **kwargs):
        found = generate(*args, **kwargs)
        trainer.model.train()
        return found

    trainer.model.generate = generates
    return trainer


def test_a_run_is_bit_identical_where_generation_ends_in_train_mode(tmp_path):
    alone = train(continuous(tmp_path))
    trainer = continuous(tmp_path)
    callback = PassKGuardCallback(trainer, prompts=held_out(), **SMALL)
    train(trainer, callback)
    assert [p.step for p in callback.guard.history] == [0, 2, 4]
    assert same_weights(weights(alone), weights(trainer))
    assert losses(alone) == losses(trainer)  # num_tokens among them
    if hasattr(trainer, "continuous_batching_config"):  # transformers fills gaps in it
        assert alone.continuous_batching_config == trainer.continuous_batching_config


def test_scores_are_those_of_eval_mode_where_generation_ends_in_train_mode(tmp_path):
    trainer = continuous(tmp_path)
    callback = PassKGuardCallback(trainer, prompts=held_out(), **SMALL)
    policy, pool = callback.guard.policy, callback.guard.pool
    ids = pool.draw(4)  # two calls
    trainer.model.train()
    with policy.isolated(0):
        groups = policy.generate([pool.rows[i] for i in ids], ids, 8)
        scores = [[policy.log_probs(*g.tokens).detach() for g in groups] for _ in range(2)]
        assert not any(m.training for m in trainer.model.modules())
    assert trainer.model.training
    assert all(torch.equal(a, b) for a, b in zip(*scores, strict=True))  # no dropout
    with torch.no_grad():  # and where there is, they differ
        train_mode = [policy.log_probs(*g.tokens) for g in groups]
    assert not torch.allclose(train_mode[0], scores[0][0])


def test_an_installed_objective_takes_no_probe_for_training(tmp_path):
    """Its scale is a running average over training batches: how often is probed is no matter."""
    scales = []
    for every in (1, 2):
        trainer = continuous(tmp_path, steps=2)
        settings = {**SMALL, "every": every, "action": "mix"}
        callback = PassKGuardCallback(trainer, prompts=held_out(), **settings)
        train(trainer, callback)
        assert not callback.guard.failures
        assert len(callback.guard.history) == 1 + 2 // every
        scales.append(callback.guard.objective.scale)
    assert scales[0] == scales[1] != 1


@pytest.mark.parametrize("objective", [None, "pkpo"])
def test_the_trainers_own_evaluation_is_left_alone(tmp_path, objective):
    config = {"per_device_eval_batch_size": 8, "parts": {"eval_dataset": held_out(16)}}
    found = []
    for guarded in (False, True):
        trainer = make_trainer(tmp_path, **config)
        if guarded:
            callback = PassKGuardCallback(trainer, objective=objective, **SMALL)
            callback._session._hook and callback._session._hook.install()
            trainer.add_callback(callback)
        torch.manual_seed(0)
        trainer.evaluate()
        found.append(losses(trainer))
    assert found[0] == found[1]
    assert "eval_reward" in found[0][-1]


def test_a_probe_s_answers_end_where_training_s_do(tmp_path):
    """And are cut where the trainer says so."""
    trainer = make_trainer(tmp_path, max_completion_length=6)
    trainer.model.generation_config.eos_token_id = [4, 5]
    trainer = make_trainer(tmp_path, max_completion_length=6, model=trainer.model)
    ends = set(getattr(trainer, "eos_token_ids", [trainer.processing_class.eos_token_id]))
    policy = PassKGuardCallback(trainer, prompts=held_out(), **GUARD).guard.policy
    with policy.isolated(0):
        (group,) = policy.generate([held_out()[0]], [0], 64)
    answers = [ids[mask.bool()].tolist() for ids, mask in zip(*group.tokens[::2], strict=True)]
    assert {answer[-1] for answer in answers} > ends
    assert [answer[-1] not in ends for answer in answers] == group.truncated.tolist()
    assert all(len(answer) == 6 or answer[-1] in ends for answer in answers)
