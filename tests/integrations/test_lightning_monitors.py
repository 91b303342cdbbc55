"""Lightning's monitors on a guard's key: a value is there in every epoch, as of the last look."""

from extras import needs

needs("trl", "lightning")

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning_runs import Automatic, fit, guard, steps_of

KEY = "passk_guard/track"


class Plateau(Automatic):
    """Its learning rate rests on pass@1, which gets no better."""

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", 0.5, 0, 10.0)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": KEY, "interval": "epoch"},
        }


class Validated(Plateau):
    def validation_step(self, rows, batch_idx):
        self.log("nothing", 0.0, batch_size=1)

    def val_dataloader(self):
        return torch.utils.data.DataLoader([{}] * 2, collate_fn=list)


def monitors(tmp_path, **settings):
    stop = EarlyStopping(KEY, mode="max", patience=1000, **settings)
    keep = ModelCheckpoint(tmp_path / "best", monitor=KEY, mode="max", save_top_k=-1)
    return stop, keep


@pytest.mark.parametrize(
    ("kind", "at_epoch_end"),
    [(Plateau, None), (Validated, None), (Validated, True), (Validated, False)],
)
def test_epochs_without_a_look_have_the_last_value(tmp_path, kind, at_epoch_end):
    """The look at step 0 is all that the first three epochs have."""
    callback, module = guard(every=7), kind()
    stop, keep = monitors(tmp_path, check_on_train_epoch_end=at_epoch_end)
    trainer = fit(tmp_path, module, callback, stop, keep, steps=8, limit_train_batches=2)
    assert steps_of(callback) == [0, 7]
    first, last = (probe.track.pass_at_1 for probe in callback.guard.history)
    seen = list(keep.best_k_models.values())
    assert [float(score) for score in seen] == pytest.approx([first] * 3 + [last])
    assert float(trainer.callback_metrics[KEY]) == pytest.approx(last)
    assert trainer.optimizers[0].param_groups[0]["lr"] < 1e-3  # no epoch was better


def test_a_resumed_run_has_it_before_its_first_look(tmp_path):
    callback = guard(every=7)
    fit(tmp_path, Plateau(), callback, *monitors(tmp_path), steps=2, limit_train_batches=2)
    (saved,) = (tmp_path / "best").glob("*.ckpt")
    again = guard(every=7)
    trainer = fit(
        tmp_path, Plateau(), again, *monitors(tmp_path),
        steps=6, limit_train_batches=2, ckpt_path=saved,
    )  # fmt: skip
    assert not again.guard.history
    track = callback.guard.history[0].track.pass_at_1
    assert float(trainer.callback_metrics[KEY]) == pytest.approx(track)
