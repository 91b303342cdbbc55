"""What GRPOTrainer can be told to do, in real runs: the guard works and training is untouched."""

from extras import needs

needs("trl", "peft")

import re

import ambiguous_arithmetic as task
import pytest
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from trl import GRPOConfig
from trl_runs import (
    GUARD,
    TAKES_ASYNC,
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

FIELDS = GRPOConfig.__dataclass_fields__
# As the installed TRL lists them, so that a loss it adds is run here without anybody's doing.
# Liger's fused loss (use_liger_kernel) is left out: its kernels need a GPU.
LOSS_TYPES = re.findall(
    r"'(\w+)'",
    FIELDS["loss_type"].metadata["help"].partition("Supported values are")[2].split(".")[0],
)
assert {"grpo", "dapo", "bnpo", "dr_grpo"} <= set(LOSS_TYPES)
# multi_objective_aggregation: its default is "two rewards" here; the other value cannot carry a
# pass@k term and is in test_trl_objective.py, with the known and the other unknown scalings.


async def judged(completions, answer, **_):
    return near_answer(completions, answer)


async def judged_otherwise(completions, **_):
    return [0.0] * len(completions)


def brevity(completions, **_):
    return [0.2 * (len(c.split()) < 2) for c in completions]


def in_chat(completions, answer, **_):
    return near_answer([c[0]["content"] for c in completions], answer)


def chat_tokenizer():
    tokenizer = task.make_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    return tokenizer


def tiny_model():
    return task.make_model(task.make_tokenizer(), hidden=32, layers=1)


def lora():
    return LoraConfig(r=4, lora_alpha=8, lora_dropout=0.1, task_type="CAUSAL_LM")


def virtual_tokens():
    return PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")


# Each gives the settings anew: a tokenizer, a model or a LoRA configuration serves one run.
LOSSES = {
    # LUSPO is defined on sequence-level ratios only.
    loss: lambda loss=loss: {
        "loss_type": loss,
        **({"importance_sampling_level": "sequence"} if loss == "luspo" else {}),
    }
    for loss in LOSS_TYPES
}
INPUTS = {
    "chat": lambda: {
        "reward_funcs": in_chat,
        "rows": chat_rows(task.make_rows(64)),
        "tokenizer": chat_tokenizer(),
    },
    "LoRA": lambda: {"parts": {"peft_config": lora()}},
    "LoRA, a reference, checkpointing": lambda: {
        "parts": {"peft_config": lora()},
        "beta": 0.04,
        "checkpointing": True,
    },
    "a PEFT model": lambda: {"model": get_peft_model(tiny_model(), lora())},
    "prompt tuning": lambda: {"parts": {"peft_config": virtual_tokens()}},
    "two rewards": lambda: {"reward_funcs": [brevity, near_answer], "reward_weights": [0.5, 1.0]},
}
if TAKES_ASYNC:
    INPUTS["async reward"] = lambda: {"reward_funcs": judged}
    INPUTS["async and plain"] = lambda: {"reward_funcs": [brevity, judged]}
BATCHES = {
    "num_iterations": lambda: {"num_iterations": 2},
    "accumulation": lambda: {"steps_per_generation": 2, "gradient_accumulation_steps": 2},
    "one generation, two steps": lambda: {
        "steps_per_generation": 4,
        "gradient_accumulation_steps": 2,
    },
    "sequence-level ratios": lambda: {"loss_type": "grpo", "importance_sampling_level": "sequence"},
}


def guarded(tmp_path, case, pass1_weight=None, **settings):
    """A guarded run of three steps, and its guard."""
    config = case()
    trainer = make_trainer(tmp_path, steps=3, **config)
    rows = chat_rows(held_out()) if "tokenizer" in config else held_out()
    rewards = config.get("reward_funcs")
    success = rewards[-1].__name__ if isinstance(rewards, list) else None
    callback = PassKGuardCallback(trainer, prompts=rows, success=success, **GUARD, **settings)
    if pass1_weight is not None:
        callback.guard.objective.pass1_weight = pass1_weight
    train(trainer, callback)
    assert not callback.guard.failures
    assert [probe.step for probe in callback.guard.history] == [0, 2]
    assert 0 < callback.guard.history[0].pass_at_1 < 1
    return trainer, callback.guard


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Weights and losses of each case's run without a guard, which is made once."""
    found = {}

    def run(case):
        if case not in found:
            trainer = train(make_trainer(tmp_path_factory.mktemp("alone"), steps=3, **case()))
            found[case] = weights(trainer), losses(trainer)
        return found[case]

    return run


@pytest.mark.parametrize("case", {**INPUTS, **BATCHES}.values(), ids={**INPUTS, **BATCHES})
def test_watching_leaves_training_bit_identical(tmp_path, case, alone):
    watched, _ = guarded(tmp_path, case, action="warn")
    untouched, logged = alone(case)
    assert same_weights(untouched, weights(watched))
    assert logged == losses(watched)


@pytest.mark.parametrize("case", {**LOSSES, **INPUTS}.values(), ids={**LOSSES, **INPUTS})
def test_the_objective_is_in_force_and_lambda_one_is_the_trainer_untouched(tmp_path, case, alone):
    untouched, _ = alone(case)
    changed, guard = guarded(tmp_path, case, objective="pkpo")
    assert guard.objective is not None
    assert not same_weights(untouched, weights(changed))
    kept, guard = guarded(tmp_path, case, objective="pkpo", pass1_weight=1.0)
    assert guard.objective is not None
    assert same_weights(untouched, weights(kept))


@pytest.mark.skipif(not TAKES_ASYNC, reason="this TRL has no async reward functions")
def test_an_async_verifier_of_its_own_needs_the_trainers_event_loop(tmp_path):
    with pytest.raises(ValueError, match="The verifier is async, but the trainer has no async"):
        PassKGuardCallback(make_trainer(tmp_path), prompts=held_out(), reward_funcs=judged)
    trainer = make_trainer(tmp_path, reward_funcs=[judged_otherwise])
    callback = PassKGuardCallback(trainer, prompts=held_out(), reward_funcs=judged, **GUARD)
    train(trainer, callback)
    assert not callback.guard.failures
    assert 0 < callback.guard.history[0].pass_at_1 < 1
