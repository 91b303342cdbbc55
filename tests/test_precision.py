"""Half-precision weights, autocast, compiled models, adapters: the same Gramian, no trace left."""

import own_loss
import pytest
import torch
from hosts import HOSTS, lightning_trainer, module_weights, settings
from hosts import model as small_model
from lightning_runs import Automatic, batches, guard
from test_gradients import explicit_gradients
from tiny import CausalLMPolicy, random_groups, tiny_llama
from trl_runs import near_answer, same_weights, weights

from passk_guard.gradients import prompt_gramian, select_parameters
from passk_guard.integrations.transformers import PassKGuardCallback


def gramian(model, **settings):
    groups = random_groups(8, 6)
    parameters = select_parameters(model.named_parameters())
    return prompt_gramian(CausalLMPolicy(model), groups, parameters, **settings)


def cosine(a, b):
    return float((a * b).sum() / (a.norm() * b.norm()))


@pytest.mark.parametrize("limit", [2**30, 0], ids=["exact", "sketched"])
def test_bfloat16_weights_give_the_gramian_of_float32_ones(limit):
    whole = gramian(tiny_llama().eval())
    half = gramian(tiny_llama().eval().bfloat16(), memory_limit=limit)
    assert cosine(whole, half) > 0.99
    assert cosine(whole, half[torch.randperm(8)]) < 0.9  # of other prompts: it would be seen


def test_a_compiled_model_gives_the_same():
    model = tiny_llama().eval()
    whole = gramian(model)
    compiled = torch.compile(model, backend="aot_eager", dynamic=True)
    groups = random_groups(8, 6)
    parameters = select_parameters(model.named_parameters())
    got = prompt_gramian(CausalLMPolicy(compiled), groups, parameters)
    assert (got - whole).norm() / whole.norm() < 1e-5


def test_a_lora_s_gramian_is_by_its_adapters_alone():
    peft = pytest.importorskip("peft")
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
