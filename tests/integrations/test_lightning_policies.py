"""Lightning: policies that are no language models; both of its package names."""

from extras import needs

needs("trl", "lightning", "pytorch_lightning")

from dataclasses import replace

import lightning as L
import pytest
import pytorch_lightning
import torch
from lightning_runs import batches, fit, steps_of, unpickled
from tiny import BanditPolicy
from trl_runs import GUARD

from passk_guard.integrations.lightning import PassKGuardCallback


class Silent(BanditPolicy):
    """Says what it chose, and leaves it to a verifier whether that is right."""

    def generate(self, rows, row_ids, n):
        return [
            replace(
                group,
                success=torch.full((n,), torch.nan),
                completions=tuple(group.input_ids[:, 1].tolist()),
            )
            for group in super().generate(rows, row_ids, n)
        ]


def bandit_module(bandit, package=L):
    """No language model anywhere: a softmax bandit, trained on its exact pass@1."""

    class BanditModule(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.bandit = bandit

        def training_step(self, batch, batch_idx):
            return -torch.stack([bandit.success(i) for i in range(64)]).mean()

        def configure_optimizers(self):
            return torch.optim.SGD([bandit.weight], lr=20.0)

    return BanditModule()


def chose(completions, right, **_):
    return [float(c == r) for c, r in zip(completions, right, strict=True)]


@pytest.mark.parametrize("kind", [BanditPolicy, Silent])
def test_a_policy_that_is_no_language_model(tmp_path, kind):
    module, exact = bandit_module(kind(64)), []

    class Exact(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            exact.append(pl_module.bandit.exact_gradients()[0])

    rows = [{"prompt": f"{i}", "right": int(r)} for i, r in enumerate(module.bandit.right)]
    callback = PassKGuardCallback(
        prompts=rows,
        policy=lambda module: module.bandit,
        reward_funcs=chose if kind is Silent else None,
        **{**GUARD, "reference_prompts": 64, "every": 1, "num_generations": 16},
    )
    fit(tmp_path, module, callback, Exact(), steps=8)
    assert not callback.guard.failures
    for probe, p in zip(callback.guard.history, exact, strict=False):
        error = float((p * (1 - p) / 16).sum().sqrt()) / 64  # all 64 prompts, 16 rollouts each
        assert abs(probe.pass_at_1 - float(p.mean())) < 3 * error
    assert float(exact[-1].mean()) > float(exact[0].mean()) + 3 * error  # there was a change to see


def test_anchors_of_a_policy_that_verifies_by_itself(tmp_path):
    callback = PassKGuardCallback(
        prompts=[f"{i}" for i in range(64)],
        policy=lambda module: module.bandit,
        anchor_prompts=[f"{i}" for i in range(32)],
        action="mix",
        floor=0.99,
        **GUARD,
    )
    fit(tmp_path, bandit_module(BanditPolicy(64)), callback, steps=4)
    assert not callback.guard.failures
    assert callback.guard.pass1_weight > 0


@pytest.mark.parametrize("package", [L, pytorch_lightning])
def test_both_package_names(tmp_path, package):
    """One callback class serves them, saving and resuming included."""
    keywords = {"prompts": [f"{i}" for i in range(64)], "policy": lambda module: module.bandit}
    saved, histories = None, []
    for steps in (4, 8):
        callback = PassKGuardCallback(**keywords, **GUARD, action="checkpoint", floor=0.99)
        trainer = package.Trainer(
            max_steps=steps,
            accelerator="cpu",
            callbacks=[callback],
            default_root_dir=tmp_path,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        module = bandit_module(BanditPolicy(64), package)
        trainer.fit(module, batches(), ckpt_path=saved, **unpickled(saved))
        histories.append(steps_of(callback))
        (saved,) = tmp_path.glob("*.ckpt")
        assert "passk_guard/track" in trainer.callback_metrics
    assert histories == [[0, 2, 4], [2, 4, 6, 8]]
