"""Runs whose parameters are all frozen at the start, and are unfrozen while they train."""

from extras import needs

needs("trl", "lightning")

import pytest
import torch
from hosts import HOSTS, model, module_weights, own_loss
from lightning.pytorch.callbacks import BaseFinetuning
from lightning_runs import Automatic, fit, guard, steps_of
from transformers import TrainerCallback
from trl_runs import GUARD, held_out, losses, make_trainer, same_weights, weights

from passk_guard import PassKGuardWarning

WAITS = "nothing is trainable yet"


class Unfreezing(BaseFinetuning):
    """The head before the first step, the layers after the second epoch."""

    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.model)

    def finetune_function(self, pl_module, epoch, optimizer):
        parts = {0: pl_module.model.lm_head, 2: pl_module.model.model.layers}
        if epoch in parts:
            self.unfreeze_and_add_param_group(parts[epoch], optimizer, lr=1e-3)


class WithCritic(Automatic):
    """The optimizer begins with the critic alone."""

    def __init__(self):
        super().__init__()
        self.critic = torch.nn.Linear(1, 1)

    def training_step(self, rows, batch_idx):
        return super().training_step(rows, batch_idx) + self.critic(torch.ones(1, 1)).square().sum()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.critic.parameters(), lr=1e-3)


@pytest.mark.long
def test_gradual_unfreezing_in_lightning(tmp_path):
    def run(*callbacks):
        torch.manual_seed(0)
        module = WithCritic()
        fit(tmp_path, module, *callbacks, Unfreezing(), steps=16, limit_train_batches=4)
        return module_weights(module)

    callback = guard(every=4)
    alone = run()
    with pytest.warns(PassKGuardWarning, match=WAITS) as caught:
        found = run(callback)
    assert sum(WAITS in str(warning.message) for warning in caught) == 1
    assert steps_of(callback) == [0, 4, 8, 12, 16]
    assert not callback.guard.failures
    assert same_weights(alone, found)
    prober = callback.guard._prober
    assert len(prober._kept) == 2  # of 12 and 16: before, other parameters were trained
    assert len(prober.gradients.parameters) > 1


class Unfreeze(TrainerCallback):
    """Everything, after training has begun and before the first step."""

    def on_epoch_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
        if not any(p.requires_grad for p in model.parameters()):
            model.requires_grad_(True)
            optimizer.param_groups[0]["params"] += model.parameters()


@pytest.mark.long
@pytest.mark.parametrize(("name", "given"), [("trl", False), ("transformers", True)])
def test_a_trainer_whose_model_is_unfrozen_as_training_begins(tmp_path, name, given):
    def run(folder, callback=None):
        frozen = model(dropout=0.0).requires_grad_(False)
        if name == "trl":
            trainer = make_trainer(tmp_path / folder, steps=3, model=frozen)
        else:
            trainer = own_loss.make_trainer(frozen, str(tmp_path / folder), steps=3)
        keywords = {"prompts": held_out(), **HOSTS[name].settings, **GUARD}
        if callback:
            callback = callback(*[trainer] if given else [], **keywords)
            trainer.add_callback(callback)
        trainer.add_callback(Unfreeze())
        trainer.train()
        return callback and callback.guard, weights(trainer), losses(trainer)

    _, *alone = run("alone")
    with pytest.warns(PassKGuardWarning, match=WAITS):
        guarded, *found = run("guarded", HOSTS[name].callback)
    assert [probe.step for probe in guarded.history] == [0, 2]
    assert not guarded.failures
    assert same_weights(alone[0], found[0])
    assert alone[1] == found[1]
