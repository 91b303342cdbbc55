"""Acting inside real GRPO and RLOO runs."""

from extras import needs

needs("trl")

import pytest
import torch
from test_trl_objective import advantages_seen
from transformers import TrainerCallback
from trl import RLOOConfig, RLOOTrainer
from trl_runs import GUARD, held_out, make_trainer, near_answer, same_weights, train, weights

from passk_guard import PassKGuardWarning
from passk_guard.integrations.trl import PassKGuardCallback

ALARM = {"floor": 0.99}  # pass@1 is surely below it: an alarm at the first probe


def test_mix_into_the_trainers_own_advantages_is_nothing_without_an_alarm(tmp_path):
    alone = train(make_trainer(tmp_path, steps=6, dropout=0.1))
    trainer = make_trainer(tmp_path, steps=6, dropout=0.1)
    callback = PassKGuardCallback(trainer, prompts=held_out(), action="mix", **GUARD)
    assert same_weights(weights(alone), weights(train(trainer, callback)))


@pytest.mark.parametrize("objective", ["analytic", None])
def test_mix_changes_training_after_an_alarm(tmp_path, objective):
    def run(**settings):
        trainer = make_trainer(tmp_path, steps=6, scale_rewards="group")
        settings = {**GUARD, "objective": objective, **settings}
        callback = PassKGuardCallback(trainer, prompts=held_out(), **settings)
        return train(trainer, callback), callback.guard

    alone, _ = run()
    acted, guard = run(action="mix", **ALARM)
    assert [p.pass1_weight for p in guard.history] == [0.0, 1.0, 1.0, 1.0]
    assert not guard.failures
    assert not same_weights(weights(alone), weights(acted))


def test_lambda_is_live_inside_a_reused_batch(tmp_path):
    """One generation batch serves four optimizer steps, and λ changes between them."""

    class Turn(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            callback.guard.objective.pass1_weight = float(state.global_step % 2)

    config = {"steps": 4, "num_iterations": 2, "steps_per_generation": 2, "shuffle_dataset": False}
    alone = make_trainer(tmp_path, **config)
    own = advantages_seen(alone)
    train(alone)
    trainer = make_trainer(tmp_path, callbacks=[Turn()], **config)
    callback = PassKGuardCallback(trainer, prompts=held_out(), objective="pkpo", **GUARD)
    seen = advantages_seen(trainer)
    train(trainer, callback)
    # The buffer is two batches, each used twice: 0 1 0 1. λ = 0 on the first, 1 on the second.
    assert not torch.equal(seen[0], own[0])
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], own[1])
    assert torch.equal(seen[3], own[3])


def make_rloo(tmp_path, beta, model_path, **config):
    names = RLOOConfig.__dataclass_fields__
    checkpointing = next(
        n for n in names if n in ("activation_checkpointing", "gradient_checkpointing")
    )
    settings = {
        "output_dir": str(tmp_path),
        "per_device_train_batch_size": 16,
        "num_generations": 8,
        "learning_rate": 1e-3,
        "max_completion_length": 2,
        "max_steps": 3,
        "beta": beta,
        checkpointing: False,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "logging_steps": 1,
        **config,
    }
    import ambiguous_arithmetic as task
    from transformers import AutoModelForCausalLM

    return RLOOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model_path),
        reward_funcs=near_answer,
        args=RLOOConfig(**settings),
        train_dataset=task.make_rows(64),
        processing_class=task.make_tokenizer(),
    )


@pytest.mark.parametrize("config", [{"beta": 0.0}, {"beta": 0.05}, {"normalize_advantages": True}])
def test_rloo_keeps_its_kl_and_lambda_one_is_the_trainer_untouched(tmp_path, config):
    import ambiguous_arithmetic as task

    path = tmp_path / "model"
    task.make_model(task.make_tokenizer(), hidden=32, layers=1).save_pretrained(path)
    task.make_tokenizer().save_pretrained(path)
    config = {"beta": 0.0, **config}

    def run(weight=None, **settings):
        trainer = make_rloo(tmp_path, model_path=path, **config)
        seen = advantages_seen(trainer)
        if weight is not None:
            callback = PassKGuardCallback(
                trainer, prompts=held_out(), objective="pkpo", **GUARD, **settings
            )
            callback.guard.objective.pass1_weight = weight
            trainer.add_callback(callback)
        trainer.train()
        if weight is not None:
            assert not callback.guard.failures
            assert callback.guard.objective is not None
        return trainer, seen

    alone, own = run()
    kept, same = run(1.0)
    assert all(torch.equal(a, b) for a, b in zip(own, same, strict=True))
    assert same_weights(weights(alone), weights(kept))
    changed, other = run(0.0)
    assert not same_weights(weights(alone), weights(changed))
    # PKPO gives a wrong rollout nothing; the penalty, small as it is, stays on every rollout once
    # policy and reference differ.
    nothing = float((other[-1] == 0).float().mean())
    assert nothing == 0 if config["beta"] else nothing > 0.2


def test_checkpoint_saves_before_the_loss_once(tmp_path):
    trainer = make_trainer(tmp_path, steps=8)
    settings = {**GUARD, "action": "checkpoint", **ALARM}
    callback = PassKGuardCallback(trainer, prompts=held_out(), **settings)
    train(trainer, callback)
    saved = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert len(saved) == 1
    assert (tmp_path / saved[0] / "passk_guard.pt").exists()


def test_stop_saves_and_ends_training_with_its_reason(tmp_path, caplog):
    caplog.set_level("INFO", logger="passk_guard")
    trainer = make_trainer(tmp_path, steps=50)
    settings = {**GUARD, "action": ["warn", "stop"], **ALARM}
    callback = PassKGuardCallback(trainer, prompts=held_out(), **settings)
    with pytest.warns(PassKGuardWarning, match="pass@1 is at risk"):
        train(trainer, callback)
    assert trainer.state.global_step < 5
    assert list(tmp_path.glob("checkpoint-*"))
    assert any("training stops here" in r.getMessage() for r in caplog.records)


def test_mix_needs_to_see_which_training_rollouts_are_right(tmp_path):
    def other(completions, **_):
        return [0.0] * len(completions)

    trainer = make_trainer(tmp_path)
    with pytest.raises(ValueError, match="none of the trainer's reward_funcs"):
        PassKGuardCallback(trainer, prompts=held_out(), reward_funcs=other, action="mix", **GUARD)
