"""Autocast and adapters in real runs: the same Gramian, no trace left."""

from extras import needs

needs("trl", "lightning", "peft")

import own_loss
import peft
import pytest
import torch
from hosts import HOSTS, lightning_trainer, module_weights, settings
from hosts import model as small_model
from lightning_runs import Automatic, batches, guard
from test_gradients import explicit_gradients, gramian
from tiny import random_groups, tiny_llama
from trl_runs import near_answer, same_weights, weights

from passk_guard.gradients.parameters import select_parameters
from passk_guard.integrations.transformers import PassKGuardCallback


def test_a_lora_s_gramian_is_by_its_adapters_alone():
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = peft.get_peft_model(tiny_llama(), config).eval()
    names = [name for name, _ in select_parameters(model.named_parameters())]
    assert names
    assert all("lora_" in name for name in names)
    explicit = explicit_gradients(model, random_groups(8, 6))
    want = explicit @ explicit.T
    assert (gramian(model) - want).norm() / want.norm() < 1e-5


def bf16_trainer(out, guarded):
    trainer = own_loss.make_trainer(
        small_model(),
        str(out),
        steps=4,
        learning_rate=1e-3,
        per_device_train_batch_size=8,
        bf16=True,
        disable_tqdm=True,
    )
    trainer.verify = near_answer
    callback = None
    if guarded:
        callback = PassKGuardCallback(trainer, **settings(HOSTS["transformers"]))
        trainer.add_callback(callback)
    trainer.train()
    return weights(trainer), callback


def bf16_lightning(out, guarded):
    torch.manual_seed(0)
    module, callback = Automatic(), guard() if guarded else None
    callbacks = [callback] if callback else []
    trainer = lightning_trainer(out, callbacks, max_steps=4, precision="bf16-mixed")
    torch.manual_seed(0)
    trainer.fit(module, batches())
    return module_weights(module), callback


@pytest.mark.parametrize("run", [bf16_trainer, bf16_lightning])
def test_mixed_precision_is_left_untouched_and_used_in_probes(tmp_path, run):
    alone, _ = run(tmp_path / "alone", False)
    guarded, callback = run(tmp_path / "guarded", True)
    assert same_weights(alone, guarded)
    assert [p.step for p in callback.guard.history] == [0, 2, 4]
    assert not callback.guard.failures
