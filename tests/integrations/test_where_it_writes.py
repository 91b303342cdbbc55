"""Files of the guard: where the run keeps others, or where ``journal=`` says, and nowhere else."""

from extras import needs

needs("trl", "lightning")

import pytest
from hosts import HOSTS, SAVE, settings
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning_runs import Automatic, fit, guard

from passk_guard.cli.main import main


def files(folder):
    return {path.name for path in folder.rglob("*") if path.is_file()}


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_a_lightning_trainer_that_keeps_nothing_gets_no_file(tmp_path, caplog, capsys):
    caplog.set_level("INFO", logger="passk_guard")
    for more in ({}, {"fast_dev_run": 2}, {"barebones": True, "logger": None}):
        callback = guard()
        fit(tmp_path, Automatic(), callback, steps=2, **more)
        assert callback.guard.history
        assert not files(tmp_path)
        (told,) = (text for text in caplog.messages if "every look is" in text)
        assert "kept in callback.guard.history, and in no file; journal=True writes one" in told
        caplog.clear()
    assert main(["report", str(tmp_path)]) == 1
    assert "In Lightning without logger and checkpoints" in capsys.readouterr().err


@pytest.mark.parametrize("keeps", ["logger", "checkpoints", "journal"])
def test_one_that_does_gets_it_beside_them(tmp_path, keeps, caplog):
    caplog.set_level("INFO", logger="passk_guard")
    saves = [ModelCheckpoint(tmp_path)] if keeps == "checkpoints" else []
    more = {"logger": CSVLogger(tmp_path)} if keeps == "logger" else {}
    callback = guard(journal=True if keeps == "journal" else None)
    fit(tmp_path, Automatic(), callback, *saves, steps=2, **more)
    assert "passk_guard.jsonl" in files(tmp_path)
    assert f"every look is written to {tmp_path / 'passk_guard.jsonl'}" in caplog.text


@pytest.mark.long
@pytest.mark.parametrize("name", HOSTS)
def test_without_a_journal_there_is_nothing_but_the_state_in_checkpoints(tmp_path, name):
    host = HOSTS[name]
    host.run(tmp_path, steps=SAVE, save=True, guard=settings(host, journal=False))
    found = host.run(tmp_path, steps=6, guard=settings(host, journal=False), resume=SAVE).guard
    assert [probe.step for probe in found.history] == [6]
    assert not found.failures
    ours = {name for name in files(tmp_path) if "passk_guard" in name}
    assert ours <= {"passk_guard.pt"}
