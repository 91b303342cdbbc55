"""The callback in real GRPO runs: it leaves them bit-identical, reports, and survives faults."""

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerCallback
from trl_runs import GUARD, held_out, losses, make_trainer, near_answer, weights

from passk_guard import PassKGuardWarning
from passk_guard.integrations.trl import PassKGuardCallback
from passk_guard.objectives import pkpo_advantages

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:passk-guard. the pool has"),
]


def train(trainer, callback=None):
    if callback is not None:
        trainer.add_callback(callback)
    trainer.train()
    return trainer


def same_weights(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


# Do no harm --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"checkpointing": True, "gradient_accumulation_steps": 2},
        {"num_iterations": 2, "beta": 0.04, "mask_truncated_completions": True, "top_p": 0.9},
    ],
    ids=["plain", "checkpointing", "reuse"],
)
def test_weights_and_losses_are_bit_identical_with_and_without(tmp_path, config):
    if "beta" in config:  # TRL loads the reference model by name
        from ambiguous_arithmetic import make_model, make_tokenizer

        saved = tmp_path / "model"
        make_model(make_tokenizer(), hidden=32, layers=1, dropout=0.1).save_pretrained(saved)
        make_tokenizer().save_pretrained(saved)

        def new(**kw):
            from transformers import AutoModelForCausalLM

            model = AutoModelForCausalLM.from_pretrained(saved, attention_dropout=0.1)
            return make_trainer(tmp_path, steps=20, model=model, **config, **kw)
    else:

        def new(**kw):
            return make_trainer(tmp_path, steps=20, dropout=0.1, **config, **kw)

    alone = train(new())
    trainer = new()
    callback = PassKGuardCallback(trainer, prompts=held_out(), **GUARD)
    guarded = train(trainer, callback)
    assert [p.step for p in callback.guard.history] == list(range(0, 21, 2))
    assert not callback.guard.failures
    assert same_weights(weights(alone), weights(guarded))
    assert losses(alone) == losses(guarded)
    start = new()
    assert not same_weights(weights(start), weights(alone))  # something was trained


def test_sampling_without_isolation_fails_the_same_comparison(tmp_path):
    class Careless(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            model.generate(torch.tensor([[4]]), max_new_tokens=1, do_sample=True, pad_token_id=0)

    alone = train(make_trainer(tmp_path, steps=20))
    careless = train(make_trainer(tmp_path, steps=20), Careless())
    assert not same_weights(weights(alone), weights(careless))


def test_both_forms_give_the_same_history(tmp_path):
    one = make_trainer(tmp_path)
    first = PassKGuardCallback(one, prompts=held_out(), **GUARD)
    train(one, first)
    second = PassKGuardCallback(prompts=held_out(), **GUARD)
    train(make_trainer(tmp_path, callbacks=[second]))
    assert [p.update_alignment.z for p in first.guard.history] == [
        p.update_alignment.z for p in second.guard.history
    ]


# Reports -----------------------------------------------------------------------------------


def test_scalars_and_image_reach_tensorboard_at_their_own_step(tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "tb"))
    trainer = make_trainer(tmp_path, report_to="tensorboard", logging_steps=3)
    callback = PassKGuardCallback(trainer, prompts=held_out(), **GUARD)
    train(trainer, callback)
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    tags = events.Tags()
    wanted = "pass_at_1 pass_at_k cosine_at_k z drift alarm k pass1_weight no_signal seconds"
    for name in wanted.split():
        assert f"train/passk_guard/{name}" in tags["scalars"], name
    scalars = events.Scalars("train/passk_guard/pass_at_1")
    assert [s.step for s in scalars] == [0, 2, 4]
    for scalar, probe in zip(scalars, callback.guard.history, strict=True):
        assert scalar.value == pytest.approx(probe.pass_at_1)
    assert [s.step for s in events.Scalars("train/loss")] == [3]  # its log is left alone
    assert "passk_guard/alignment_curve" in tags["images"]


def test_an_unwritable_reporter_is_said_once_and_training_goes_on(tmp_path):
    from transformers.integrations import TensorBoardCallback

    class FullDisk(TensorBoardCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            if any("passk_guard" in key for key in logs):
                raise OSError("No space left on device")

    trainer = make_trainer(tmp_path, callbacks=[FullDisk()])
    callback = PassKGuardCallback(trainer, prompts=held_out(), **GUARD)
    with pytest.warns(PassKGuardWarning, match="No space left") as caught:
        train(trainer, callback)
    assert len([w for w in caught if "No space" in str(w.message)]) == 1
    assert len(callback.guard.history) == 3


# The objective -----------------------------------------------------------------------------


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


# Verifiers ---------------------------------------------------------------------------------


def format_reward(completions, **_):
    return [0.1] * len(completions)


def test_success_picks_the_deciding_reward(tmp_path):
    histories = []
    for success in ("near_answer", near_answer):
        trainer = make_trainer(tmp_path, reward_funcs=[format_reward, near_answer])
        callback = PassKGuardCallback(trainer, prompts=held_out(), success=success, **GUARD)
        train(trainer, callback)
        histories.append([p.pass_at_1 for p in callback.guard.history])
    assert histories[0] == histories[1]
    assert 0 < histories[0][0] < 1


def test_a_verifier_of_its_own_does_not_touch_the_trainers_rewards(tmp_path):
    alone = train(make_trainer(tmp_path))
    trainer = make_trainer(tmp_path)

    def never(completions, **_):
        return [0.0] * len(completions)

    callback = PassKGuardCallback(trainer, prompts=held_out(), reward_funcs=never, **GUARD)
    train(trainer, callback)
    assert [p.pass_at_1 for p in callback.guard.history] == [0, 0, 0]
    assert [p.no_signal for p in callback.guard.history] == [1, 1, 1]
    assert same_weights(weights(alone), weights(trainer))


# Faults ------------------------------------------------------------------------------------


class Flaky:
    """A verifier that misbehaves on the held-out prompts of one probe."""

    __name__ = "flaky"

    def __init__(self, fault):
        self.fault, self.armed = fault, False

    def __call__(self, completions, answer, **kwargs):
        rewards = near_answer(completions, answer)
        return self.fault(rewards) if self.armed else rewards


def boom(rewards):
    raise RuntimeError("judge is down")


def out_of_memory(rewards):
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.filterwarnings("ignore:All reward functions returned None")
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (boom, "judge is down"),
        (out_of_memory, "out of memory"),
        (lambda rewards: rewards[:-1], "rewards"),
        (lambda rewards: None, "NoneType"),
        (lambda rewards: [None] * len(rewards), "verifier scored 0 of"),
        (lambda rewards: [float("nan")] * len(rewards), "verifier scored 0 of"),
    ],
    ids=["raises", "out of memory", "wrong length", "None", "all None", "all NaN"],
)
def test_a_verifier_fault_costs_that_probe_only(tmp_path, fault, reason):
    flaky = Flaky(fault)

    class Arm(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            flaky.armed = state.global_step == 2

        def on_step_begin(self, args, state, control, **kwargs):
            flaky.armed = False

    alone = train(make_trainer(tmp_path, steps=6, dropout=0.1))
    trainer = make_trainer(tmp_path, steps=6, dropout=0.1, reward_funcs=flaky, callbacks=[Arm()])
    callback = PassKGuardCallback(trainer, prompts=held_out(), **GUARD)
    with pytest.warns(PassKGuardWarning, match="this probe is lost"):
        train(trainer, callback)
    assert [p.step for p in callback.guard.history] == [0, 4, 6]
    (failure,) = callback.guard.failures
    assert failure.step == 2
    assert reason in failure.reason
    assert same_weights(weights(alone), weights(trainer))
    strip = lambda logs: [{k: v for k, v in e.items() if "rewards/" not in k} for e in logs]  # noqa: E731
    assert strip(losses(alone)) == strip(losses(trainer))


def test_some_unscorable_rollouts_shrink_n(tmp_path):
    def patchy(completions, answer, **_):
        rewards = near_answer(completions, answer)
        return [None if i % 8 == 0 else r for i, r in enumerate(rewards)]

    trainer = make_trainer(tmp_path)
    callback = PassKGuardCallback(trainer, prompts=held_out(), reward_funcs=patchy, **GUARD)
    train(trainer, callback)
    assert [p.unscorable for p in callback.guard.history] == [16, 16, 16]
    assert callback.guard.history[0].rollouts == 16 * 7


def test_ctrl_c_in_a_probe_stops_training_as_it_should(tmp_path):
    def interrupt(rewards):
        raise KeyboardInterrupt

    flaky = Flaky(interrupt)
    trainer = make_trainer(tmp_path, reward_funcs=flaky)
    callback = PassKGuardCallback(trainer, prompts=held_out(), **GUARD)
    trainer.add_callback(callback)
    flaky.armed = True
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trainer.num_generations_eval == 8
    assert trainer.model.training or trainer.state.global_step == 0
    assert "_calculate_rewards" not in vars(trainer)


def test_resume_goes_on_where_the_checkpoint_was(tmp_path):
    config = {"steps": 8, "save_strategy": "steps", "save_steps": 4}
    whole = make_trainer(tmp_path / "a", **config)
    first = PassKGuardCallback(whole, prompts=held_out(), **GUARD)
    train(whole, first)
    again = make_trainer(tmp_path / "a", **config)
    second = PassKGuardCallback(again, prompts=held_out(), **GUARD)
    again.add_callback(second)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-4"))
    assert [p.step for p in second.guard.history] == [6, 8]
    assert [p.track for p in second.guard.history] == [p.track for p in first.guard.history[3:]]
    assert same_weights(weights(whole), weights(again))


# Bad arguments: at once, before training ---------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"prompts": None}, ValueError, "prompts is missing and the trainer has no eval_dataset"),
        ({"prompts": []}, ValueError, "prompts is empty"),
        ({"prompts": ["1 2 ="]}, ValueError, "needs 'answer', but the held-out rows have"),
        ({"reward_funcs": []}, ValueError, "reward_funcs is empty"),
        ({"reward_funcs": ["x"]}, ValueError, "names a reward model"),
        ({"reward_funcs": [near_answer, format_reward]}, ValueError, "Say which decides"),
        ({"success": "typo"}, ValueError, "names no reward function. There are: near_answer"),
        ({"k": 8, "num_generations": 8}, ValueError, "k=8 needs more than 8 rollouts"),
        ({"action": "panic"}, ValueError, "action='panic' is not known"),
        ({"temperature": 0.0}, ValueError, "temperature must be above 0"),
        ({"objective": "pkpo", "k": 9}, ValueError, "the trainer has num_generations=8"),
        ({"parameters": "nope"}, ValueError, "selects no trainable parameter"),
        ({"memory_limit": 10}, ValueError, "exact Gramian"),
    ],
)
def test_bad_arguments(tmp_path, settings, error, message):
    trainer = make_trainer(tmp_path)
    settings = {"prompts": held_out(), **settings}
    with pytest.raises(error, match=message):
        PassKGuardCallback(trainer, **settings)


def test_several_rewards_of_the_trainer_need_success(tmp_path):
    trainer = make_trainer(tmp_path, reward_funcs=[near_answer, format_reward])
    with pytest.raises(ValueError, match=r"2 reward functions .* success='near_answer'"):
        PassKGuardCallback(trainer, prompts=held_out())


def test_a_dataset_without_prompts_column(tmp_path):
    data = held_out().rename_column("prompt", "question")
    with pytest.raises(ValueError, match="no 'prompt' column, it has \\['answer', 'question'\\]"):
        PassKGuardCallback(make_trainer(tmp_path), prompts=data)


def test_bad_arguments_in_the_list_form_fail_before_training(tmp_path):
    trainer = make_trainer(tmp_path, callbacks=[PassKGuardCallback(prompts=[])])
    with pytest.raises(ValueError, match="prompts is empty"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_two_guards(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.add_callback(PassKGuardCallback(trainer, prompts=held_out(), **GUARD))
    with pytest.raises(ValueError, match="already has a PassKGuardCallback"):
        PassKGuardCallback(trainer, prompts=held_out(), **GUARD)
    with pytest.raises(ValueError, match="already has a PassKGuardCallback"):
        make_trainer(
            tmp_path,
            callbacks=[PassKGuardCallback(prompts=held_out()) for _ in range(2)],
        )


def test_the_wrong_trainer_and_no_trainer(tmp_path):
    from transformers import Trainer, TrainingArguments

    model = make_trainer(tmp_path).model
    plain = Trainer(model=model, args=TrainingArguments(str(tmp_path), use_cpu=True))
    with pytest.raises(TypeError, match=r"guards trl.GRPOTrainer, got Trainer"):
        PassKGuardCallback(plain, prompts=held_out())
    with pytest.raises(RuntimeError, match="has no trainer yet"):
        PassKGuardCallback(prompts=held_out()).guard  # noqa: B018


def test_the_eval_dataset_is_the_default_and_the_training_set_is_warned_about(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.eval_dataset = held_out(200)
    assert len(PassKGuardCallback(trainer, **GUARD).guard.pool) == 200
    with pytest.warns(PassKGuardWarning, match="prompts is the training set"):
        PassKGuardCallback(trainer, prompts=trainer.train_dataset, **GUARD)
