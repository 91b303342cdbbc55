"""A watch beside a real GRPO run: the callback's figures, from checkpoints alone."""

from extras import needs

needs("trl", "peft", "tensorboard")

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import ambiguous_arithmetic as task
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from passk_guard import HFPolicy
from passk_guard.cli.main import main
from passk_guard.integrations._checkpoint_folder import checkpoints, is_whole, load_weights
from passk_guard.integrations.folder import FolderWatch
from passk_guard.integrations.trl import PassKGuardCallback

pytestmark = pytest.mark.filterwarnings("ignore::passk_guard.errors.PassKGuardWarning")
SETTINGS = {"k": 8, "reference_prompts": 128, "rollouts_per_look": 256, "seed": 3}
LOUD = {"false_alarms": 0.1, "pass1_tolerance": 0.001}
VERIFIER = "from ambiguous_arithmetic import right_answer as verify\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that loses pass@1, its checkpoints, its callback; prompts and verifier as files."""
    folder = tmp_path_factory.mktemp("run")
    tokenizer = task.make_tokenizer()
    model = task.make_model(tokenizer)
    task.warm_up(model, tokenizer, steps=400)
    saving = {"save_strategy": "steps", "save_steps": 5, "report_to": "none"}
    trainer = task.make_trainer(
        model,
        tokenizer,
        steps=15,
        learning_rate=3e-5,
        out=str(folder / "checkpoints"),
        scale_rewards="none",
        **saving,
    )
    rows = task.make_rows(512, seed=7).to_list()
    callback = PassKGuardCallback(
        trainer, prompts=rows, objective="pkpo", every=5, journal=False, **SETTINGS, **LOUD
    )
    trainer.add_callback(callback)
    trainer.save_model(str(folder / "checkpoints" / "checkpoint-0"))
    trainer.train()
    (folder / "held_out.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "verifier.py").write_text(VERIFIER)
    return folder, callback.guard, rows


def policy_of(path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(path).eval()
    return HFPolicy(model, AutoTokenizer.from_pretrained(path), max_completion_length=2)


def watch(run, out, **settings):
    folder, _, rows = run
    settings = {"once": True, **SETTINGS, **LOUD, **settings}
    where = settings.pop("where", folder / "checkpoints")
    return FolderWatch(where, rows, task.right_answer, load=policy_of, out=out, **settings)


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    found = watch(run, out)
    return found, list(found), out


def test_it_finds_what_the_callback_finds(run, whole):
    _, guard, _ = run
    found, looks, out = whole
    assert [look.checkpoint.step for look in looks] == [0, 5, 10, 15]
    for look, probe in zip(looks, guard.history, strict=True):
        assert look.probe.row_ids == probe.row_ids
        error = 3 * (look.probe.track.change_se + probe.track.change_se)
        assert look.probe.track.change == pytest.approx(probe.track.change, abs=error)
    alarms = [
        next(probe.step for probe in probes if probe.alarm)
        for probes in (guard.history, [look.probe for look in looks])
    ]
    assert abs(alarms[0] - alarms[1]) <= 5
    assert found.decision == 1
    assert looks[-1].last_good is not None
    assert looks[-1].last_good[0].step < 15
    events = EventAccumulator(str(out)).Reload()
    assert [event.step for event in events.Scalars("passk_guard/pass_at_1")] == [0, 5, 10, 15]
    assert (out / "passk_guard.jsonl").read_text().count('"look": "probe"') == 4


def test_interrupted_it_goes_on_where_it_was(run, whole, tmp_path):
    looks = [look for _, look in zip(range(2), watch(run, tmp_path), strict=False)]
    rest = list(watch(run, tmp_path))
    assert [look.checkpoint.step for look in rest] == [10, 15]
    assert [look.probe.track for look in looks + rest] == [look.probe.track for look in whole[1]]
    assert list(watch(run, tmp_path)) == []


def test_only_whole_checkpoints_count(run, tmp_path):
    folder, _, _ = run
    source = folder / "checkpoints" / "checkpoint-5"
    for layout in ("checkpoint-5", "step_6", "global_step_7/actor/huggingface", "mine/8-th"):
        shutil.copytree(source, tmp_path / layout)
    assert [c.step for c in checkpoints(tmp_path)] == [5, 6, 7]
    assert [c.step for c in checkpoints(tmp_path, r"mine/(\d+)-th")] == [8]
    weights = tmp_path / "step_6" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert not is_whole(tmp_path / "step_6")
    (tmp_path / "checkpoint-5" / "config.json").unlink()
    model = policy_of(source).model
    model.save_pretrained(tmp_path / "step_9", max_shard_size="100KB")
    shards = sorted((tmp_path / "step_9").glob("*-of-*"))
    assert len(shards) > 1
    assert [c.step for c in checkpoints(tmp_path)] == [7, 9]
    shards[0].unlink()
    torch.save(model.state_dict(), tmp_path / "step_6" / "pytorch_model.bin")
    weights.unlink()
    assert [c.step for c in checkpoints(tmp_path)] == [6, 7]
    assert checkpoints(tmp_path / "no folder") == []


def test_an_adapter_s_weights_are_put_in_place(run, tmp_path):
    from peft import LoraConfig, get_peft_model

    model = policy_of(run[0] / "checkpoints" / "checkpoint-0").model
    model = get_peft_model(model, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    model.save_pretrained(tmp_path / "checkpoint-1")
    assert [c.step for c in checkpoints(tmp_path)] == [1]
    saved = {name: value.clone() for name, value in model.named_parameters()}
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora" in name:
                value.add_(1.0)
    load_weights(model, tmp_path / "checkpoint-1")
    assert all(torch.equal(value, saved[name]) for name, value in model.named_parameters())


def test_behind_it_takes_the_newest_and_a_lost_one_costs_its_look(run, tmp_path, capsys, faults):
    folder, _, _ = run
    where = tmp_path / "run"
    shutil.copytree(folder / "checkpoints" / "checkpoint-0", where / "checkpoint-0")
    found, seen = watch(run, tmp_path / "out", where=where, once=False, poll=0.05), []
    for look in found:
        seen.append(look.checkpoint.step)
        if len(seen) == 1:  # one of another architecture, then two at once
            broken = task.make_model(task.make_tokenizer(), hidden=32)
            broken.save_pretrained(where / "checkpoint-3")

            def more():
                for step in (5, 10):
                    source = folder / "checkpoints" / f"checkpoint-{step}"
                    shutil.copytree(source, tmp_path / f"{step}")
                for step in (5, 10):
                    (tmp_path / f"{step}").rename(where / f"checkpoint-{step}")

            threading.Timer(1.0, more).start()
        if seen[-1] == 10:
            break
    assert seen in ([0, 10], [0, 5, 10])  # 5 may have been there for a moment alone
    assert found._seen == 10


def test_what_cannot_be_done_is_said(run, tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        watch(run, None, where=tmp_path / "nothing")
    with pytest.raises(ValueError, match="stands beside it"):
        watch(run, None, action="mix")
    first = iter(watch(run, tmp_path))
    next(first)
    with pytest.raises(ValueError, match="another watch writes to"):
        next(iter(watch(run, tmp_path)))
    first.close()
    found = watch(run, None, where=tmp_path)  # empty
    assert list(found) == []
    assert found.decision == 2


def command(run, out, *more):
    words = ["watch", str(run[0] / "checkpoints"), "--prompts", str(run[0] / "held_out.jsonl")]
    words += ["--verifier", f"{run[0]}/verifier.py:verify", "-k", "8", "--out", str(out)]
    words += ["--reference-prompts", "256", "--rollouts-per-look", "512"]
    return [*words, "--max-completion-length", "2", *more]


@pytest.mark.filterwarnings("default::passk_guard.errors.PassKGuardWarning")
def test_the_command_exits_with_its_decision_and_goes_on(run, tmp_path, capfd):
    assert main(command(run, tmp_path, "--once", "--stop-on-alarm", "--tolerance", "0")) == 1
    out, err = capfd.readouterr()
    assert "step 0: pass@1 0." in out
    assert "points since the start" in out
    assert "Last good checkpoint: " in out or "No checkpoint is within" in out
    assert "pass@1" in err
    main(command(run, tmp_path, "--once", "--tolerance", "0"))
    assert "step 15: " in capfd.readouterr()[0]


def test_sigterm_loses_nothing(run, tmp_path):
    environment = {**os.environ, "PYTHONPATH": f"{Path(task.__file__).parent}:{os.getcwd()}"}
    words = [sys.executable, "-m", "passk_guard", *command(run, tmp_path, "--poll", "0.1")]
    process = subprocess.Popen(words, env=environment, stdout=-1, stderr=-1, text=True)
    begun = time.monotonic()
    while time.monotonic() - begun < 120 and not (tmp_path / "passk_guard.pt").exists():
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "goes on where this one was" in err
    assert main(command(run, tmp_path, "--once")) in (0, 1, 2)
