"""Lightning: manual optimisation, clipping, checkpoints, loggers, sharding."""

from extras import needs

needs("trl", "lightning")

import csv

import lightning as L
import pytest
import torch
from hosts import module_weights
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning_module import PassKModule
from lightning_runs import ALARM, MIX, Automatic, fit, guard, steps_of
from trl_runs import near_answer, same_weights

from passk_guard import PassKGuardWarning


class Manual(Automatic):
    """Steps by itself, with one optimizer or with one for each half of the parameters."""

    def __init__(self, optimizers=1):
        super().__init__()
        self.automatic_optimization = False
        self.parts = [list(self.model.parameters())[i::optimizers] for i in range(optimizers)]

    def training_step(self, rows, batch_idx):
        optimizers = self.optimizers()
        for optimizer in optimizers if len(self.parts) > 1 else [optimizers]:
            optimizer.zero_grad()
            self.manual_backward(super().training_step(rows, batch_idx))
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.Adam(part, lr=self.learning_rate) for part in self.parts]


@pytest.mark.parametrize(("optimizers", "probed"), [(1, [0, 3, 6]), (2, [0, 4, 8])])
def test_manual_optimisation_is_untouched_under_warn_and_steered_under_mix(
    tmp_path, optimizers, probed
):
    """Every optimizer's step counts; the guard looks between batches, not within."""
    alone, watched, steered = (Manual(optimizers) for _ in range(3))
    fit(tmp_path, alone, steps=8)
    callback = guard(every=3)
    fit(tmp_path, watched, callback, steps=8)
    assert steps_of(callback) == probed
    assert not callback.guard.failures
    assert same_weights(module_weights(alone), module_weights(watched))
    callback = guard(every=3, **MIX, **ALARM)
    fit(tmp_path, steered, callback, steps=8)
    assert steps_of(callback) == probed
    assert callback.guard.history[-1].pass1_weight > 0.3
    assert not same_weights(module_weights(alone), module_weights(steered))


def test_an_optimizer_without_the_policy_gets_no_term(tmp_path):
    """A critic beside the policy: its step samples no anchors and moves by its own loss only."""

    class WithCritic(Manual):
        def __init__(self):
            super().__init__(2)
            self.critic = torch.nn.Linear(1, 1)
            self.parts = [list(self.critic.parameters()), list(self.model.parameters())]

        def training_step(self, rows, batch_idx):
            critic, actor = self.optimizers()
            for optimizer, loss in (
                (critic, lambda: self.critic(torch.ones(1, 1)).square().sum()),
                (actor, lambda: PassKModule.training_step(self, rows, batch_idx)),
            ):
                optimizer.zero_grad()
                self.manual_backward(loss())
                optimizer.step()

    asked = []

    def verify(completions, answer, **_):
        asked.append(len(completions))
        return near_answer(completions, answer)

    alone, steered = WithCritic(), WithCritic()
    steered.load_state_dict(alone.state_dict())
    fit(tmp_path, alone, steps=6)
    fit(tmp_path, steered, guard(reward_funcs=verify, **MIX, **ALARM), steps=6)
    assert asked.count(4 * 6) == 3  # anchors x rollouts, at the three steps of the policy's own
    assert same_weights(module_weights(alone.critic), module_weights(steered.critic))
    assert not same_weights(module_weights(alone.model), module_weights(steered.model))


def test_checkpoint_is_saved_once_and_resumes(tmp_path):
    callback = guard(action="checkpoint", **ALARM)
    fit(tmp_path, Automatic(), callback)
    (saved,) = tmp_path.glob("*.ckpt")
    assert saved.name == "passk_guard-step=1.ckpt"
    again = guard(action="checkpoint", **ALARM)
    trainer = fit(tmp_path, Automatic(), again, ckpt_path=saved)
    assert trainer.global_step == 4
    assert steps_of(again) == [2, 4]
    assert not any(probe.alarm for probe in again.guard.history)  # one episode, resumed within


def test_stop_ends_training_and_says_why(tmp_path, caplog):
    caplog.set_level("INFO", logger="passk_guard")
    trainer = fit(tmp_path, Automatic(), guard(action="stop", **ALARM))
    assert trainer.global_step == 1
    assert len(list(tmp_path.glob("*.ckpt"))) == 1
    assert "training stops here, because action='stop' was asked for" in caplog.text
    assert "pass@1" in caplog.text


class Norms(L.Callback):
    """What the optimizer got: Lightning runs the backward within ``step``, so look after it."""

    def __init__(self):
        self.seen = []

    def on_train_start(self, trainer, pl_module):
        def note(optimizer, args, kwargs):
            grads = [p.grad for g in optimizer.param_groups for p in g["params"]]
            self.seen.append(float(torch.stack([x.norm() for x in grads if x is not None]).norm()))

        trainer.optimizers[0].register_step_post_hook(note)


def test_gradient_clipping_sees_the_anchor_term(tmp_path):
    clipped, free = Norms(), Norms()
    fit(tmp_path, Automatic(), guard(**MIX, **ALARM), clipped, gradient_clip_val=1e-3)
    fit(tmp_path, Automatic(), guard(**MIX, **ALARM), free)
    assert clipped.seen == pytest.approx([1e-3] * 4, rel=1e-2)
    assert min(free.seen) > 1e-2


def test_strategies_without_gradients_of_their_own_are_refused(tmp_path):
    class FSDPStrategy(L.pytorch.strategies.SingleDeviceStrategy):
        """Stands for the real one, which needs a GPU."""

    with pytest.raises(ValueError, match="passk-guard does not support FSDPStrategy"):
        fit(tmp_path, Automatic(), guard(), strategy=FSDPStrategy(torch.device("cpu")))


def test_loggers_get_every_probe_at_its_own_step(tmp_path):
    """Also where the trainer itself logs every 50th step only."""
    loggers = [TensorBoardLogger(tmp_path, name="tb"), CSVLogger(tmp_path, name="csv")]
    best = ModelCheckpoint(
        tmp_path / "best", monitor="passk_guard/track", mode="max", every_n_train_steps=2
    )
    trainer = fit(tmp_path, Automatic(), guard(), best, logger=loggers, log_every_n_steps=50)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(loggers[0].log_dir).Reload()
    for key in ("track", "pass_at_1", "cosine_at_k", "overhead"):
        assert [e.step for e in events.Scalars(f"passk_guard/{key}")] == [0, 2, 4]
    assert {e.step for e in events.Images("passk_guard/alignment_curve")} == {0, 2, 4}
    with open(f"{loggers[1].log_dir}/metrics.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["passk_guard/track"]]
    assert [int(row["step"]) for row in rows] == [0, 2, 4]
    tracks = [e.value for e in events.Scalars("passk_guard/track")]
    assert [float(row["passk_guard/track"]) for row in rows] == pytest.approx(tracks)
    assert float(trainer.callback_metrics["passk_guard/track"]) == pytest.approx(tracks[-1])
    assert float(best.best_model_score) == pytest.approx(max(tracks[1:]))


class Broken(Logger):
    """Its server is down; the trainer's own values it takes."""

    name, version = "broken", 0

    def log_hyperparams(self, *args, **kwargs):
        """There are none."""

    def log_metrics(self, metrics, step=None):
        if any(key.startswith("passk_guard/") for key in metrics):
            raise ConnectionError("no route to host")


@pytest.mark.usefixtures("faults")
def test_a_logger_that_raises_costs_one_warning(tmp_path):
    alone, module, callback = Automatic(), Automatic(), guard()
    fit(tmp_path, alone)
    csv_logger = CSVLogger(tmp_path)
    with pytest.warns(PassKGuardWarning) as caught:
        fit(tmp_path, module, callback, logger=[Broken(), csv_logger])
    failed = [w for w in caught if "Broken: ConnectionError: no route" in str(w.message)]
    assert len(failed) == 1
    assert steps_of(callback) == [0, 2, 4]
    assert same_weights(module_weights(alone), module_weights(module))
    with open(f"{csv_logger.log_dir}/metrics.csv") as file:
        assert "passk_guard/track" in file.read()
