"""The pass@k objective inside a real GRPO run."""

import pytest
import torch
from trl_runs import (
    GUARD,
    held_out,
    make_trainer,
    same_weights,
    train,
    weights,
)

from passk_guard import PassKGuardWarning
from passk_guard.integrations.trl import PassKGuardCallback
from passk_guard.objectives import pkpo_advantages


def advantages_seen(trainer):
    """What the trainer's loss gets, and the rewards that it comes from."""
    seen = []
    compute = trainer._compute_loss

    def spy(model, inputs):
        seen.append(inputs["advantages"].clone())
        return compute(model, inputs)

    trainer._compute_loss = spy
    return seen


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_pkpo_replaces_advantages_and_lambda_one_is_the_trainer_untouched(tmp_path, scale):
    config = {"scale_rewards": scale, "steps": 3, "shuffle_dataset": False}
    alone = make_trainer(tmp_path, **config)
    own = advantages_seen(alone)
    train(alone)

    kept = make_trainer(tmp_path, **config)
    callback = PassKGuardCallback(kept, prompts=held_out(), objective="pkpo", **GUARD)
    callback.guard.objective.pass1_weight = 1.0
    same = advantages_seen(kept)
    train(kept, callback)
    assert all(torch.equal(a, b) for a, b in zip(own, same, strict=True))
    assert same_weights(weights(alone), weights(kept))

    changed = make_trainer(tmp_path, **config)
    passk = advantages_seen(changed)
    train(changed, PassKGuardCallback(changed, prompts=held_out(), objective="pkpo", **GUARD))
    assert not same_weights(weights(alone), weights(changed))
    # The first batch has the same rollouts: right ones get s (n-1)/n A_k of their group's count.
    assert torch.equal(passk[0] != 0, own[0] > 0)
    if scale == "none":
        possible = {0.0}
        for c in range(1, 8):
            group = torch.tensor([[1.0] * c + [0.0] * (8 - c)])
            possible.add(round(float(7 / 8 * pkpo_advantages(group, 4)[0, 0]), 4))
        assert {round(v, 4) for v in passk[0].tolist()} <= possible


def test_an_unknown_scaling_falls_back_to_watching(tmp_path):
    config = {"multi_objective_aggregation": "normalize_then_sum"}
    alone = train(make_trainer(tmp_path, **config))
    trainer = make_trainer(tmp_path, **config)
    callback = PassKGuardCallback(trainer, prompts=held_out(), objective="pkpo", **GUARD)
    with pytest.warns(PassKGuardWarning, match="NOT installed"):
        train(trainer, callback)
    assert same_weights(weights(alone), weights(trainer))
    assert callback.guard.objective is None
    assert len(callback.guard.history) == 3


def test_the_trainer_gets_its_methods_back(tmp_path):
    trainer = make_trainer(tmp_path)
    train(trainer, PassKGuardCallback(trainer, prompts=held_out(), objective="pkpo", **GUARD))
    assert "_generate_and_score_completions" not in vars(trainer)
    assert "_calculate_rewards" not in vars(trainer)
