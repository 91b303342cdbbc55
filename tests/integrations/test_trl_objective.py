"""The pass@k objective inside a real GRPO run."""

from extras import needs

needs("trl")

import pytest
import torch
from trl import GRPOConfig
from trl_runs import (
    GUARD,
    held_out,
    losses,
    make_trainer,
    near_answer,
    same_weights,
    train,
    weights,
)

from passk_guard import PassKGuardWarning
from passk_guard.integrations.trl import PassKGuardCallback
from passk_guard.objectives.advantages import pkpo_advantages


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
    assert not {"_generate_and_score_completions", "_calculate_rewards"} & set(vars(changed))
    # The first batch has the same rollouts, shuffled alike; the trainer's own advantage of a right
    # one tells its group's count c, and with it what has to stand in its place.
    right = own[0] > 0
    batch_std = right.float().std()
    for mine, theirs in zip(passk[0].tolist(), own[0].tolist(), strict=True):
        candidates = []
        for c in range(1, 8):
            group = torch.tensor([[1.0] * c + [0.0] * (8 - c)])
            std = {"group": group.std(), "batch": batch_std, "none": torch.tensor(1 - 1e-4)}[scale]
            s = float(1 / (std + 1e-4))
            candidates.append((s * (1 - c / 8), s * 7 / 8 * float(pkpo_advantages(group, 4)[0, 0])))
        before, after = min(candidates, key=lambda pair: abs(pair[0] - theirs))
        if theirs > 0:
            assert before == pytest.approx(theirs, rel=1e-4)
            assert mine == pytest.approx(after, rel=1e-4)
        else:
            assert mine == 0


def format_reward(completions, **_):
    return [0.2 * (len(c.split()) < 2) for c in completions]


def doubled(trainer):
    """A trainer of somebody's own, whose advantages are in no known relation to its rewards."""
    compute = trainer._generate_and_score_completions

    def generate(inputs):
        output = compute(inputs)
        return {**output, "advantages": 2 * output["advantages"]}

    trainer._generate_and_score_completions = generate


UNKNOWN = {"doubled": {}}
if "multi_objective_aggregation" in GRPOConfig.__dataclass_fields__:  # older TRL only sums
    apart = {"multi_objective_aggregation": "normalize_then_sum"}
    UNKNOWN["one reward"] = apart
    UNKNOWN["two rewards"] = {**apart, "reward_funcs": [format_reward, near_answer]}


@pytest.mark.parametrize("name", UNKNOWN)
@pytest.mark.parametrize("objective", [None, "pkpo"])
def test_an_unknown_scaling_falls_back_to_watching(tmp_path, name, objective):
    def new():
        trainer = make_trainer(tmp_path, **UNKNOWN[name])
        if name == "doubled":
            doubled(trainer)
        return trainer

    alone = train(new())
    trainer = new()
    settings = {**GUARD, "success": "near_answer", "objective": objective}
    callback = PassKGuardCallback(trainer, prompts=held_out(), **settings)
    if objective is None:
        train(trainer, callback)
    else:
        with pytest.warns(PassKGuardWarning, match="NOT installed"):
            train(trainer, callback)
    assert same_weights(weights(alone), weights(trainer))
    assert losses(alone) == losses(trainer)
    assert callback.guard.objective is None
    assert not callback.guard.failures
    assert len(callback.guard.history) == 3
