"""Settings from the command line and from YAML: TrlParser, HfArgumentParser, LightningCLI."""

from extras import needs

needs("trl", "lightning")

import json
import pydoc

import lightning as L
import pytest
import yaml
from hosts import HOSTS
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning_runs import Automatic, batches
from transformers import HfArgumentParser, TrainingArguments
from trl import GRPOConfig, RLOOConfig, TrlParser
from trl_runs import held_out

from passk_guard.config import PassKGuardConfig

ON_CPU = ["--use_cpu", "true", "--bf16", "false"]
TINY = {"k": 4, "every": 2, "reference_prompts": 16}


def parse(*arguments, beside=TrainingArguments, parser=HfArgumentParser):
    """The trainer's arguments and the guard's, from one command line."""
    both = parser((beside, PassKGuardConfig))
    return both.parse_args_into_dataclasses([*ON_CPU, "--output_dir", "runs", *arguments])


@pytest.mark.parametrize("beside", [TrainingArguments, GRPOConfig, RLOOConfig])
@pytest.mark.parametrize("parser", [HfArgumentParser, TrlParser])
def test_a_command_line_without_the_guard_s_arguments_gives_its_defaults(beside, parser):
    _, config = parse(beside=beside, parser=parser)
    assert config == PassKGuardConfig()


def test_strings_become_what_they_stand_for():
    flags = "--k 4 --action warn,mix --floor 0.62 --parameters layers --log_prompts"
    _, config = parse(*flags.split(), "--report_temperature", "0", "--objective", "pkpo")
    assert config == PassKGuardConfig(
        k=4,
        action=["warn", "mix"],
        floor=0.62,
        parameters="layers",
        log_prompts=True,
        report_temperature=0.0,
        objective="pkpo",
    )
    assert parse("--action", "stop", "--floor", "best")[1].actions == ["stop"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--action warn,panic", "action='panic' is not known"),
        ("--action mix,adjust_k", "Choose one remedy"),
        ("--floor 1.5", "floor must lie between 0 and 1, got 1.5"),
        ("--floor low", "floor='low' is not known"),
        ("--floor nan", "floor must lie between 0 and 1"),
    ],
)
def test_bad_strings_are_named(flags, message):
    with pytest.raises(ValueError, match=message):
        parse(*flags.split())


def test_names_that_trainers_have_too_are_theirs_there_and_keywords_everywhere():
    trainer, config = parse("--seed", "7", "--num_generations", "4", beside=GRPOConfig)
    assert (trainer.seed, trainer.num_generations) == (7, 4)
    assert (config.seed, config.num_generations) == (0, None)
    config = PassKGuardConfig(seed=3, num_generations=32)
    assert (config.seed, config.num_generations) == (3, 32)
    assert PassKGuardConfig(**vars(config)) == config
    assert set(vars(config)) == set(config.names())


@pytest.mark.parametrize("name", HOSTS)
def test_a_yaml_file_sets_up_every_adapter(tmp_path, name):
    settings = {**TINY, "action": ["warn"], "floor": 0.1, "false_alarms": "1e-4", "seed": 7}
    trainer = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**settings, **trainer}))
    parser = TrlParser((GRPOConfig, PassKGuardConfig))
    arguments = ["--config", str(tmp_path / "run.yaml"), "--pass1_tolerance", "0.02"]
    trainer, config = parser.parse_args_and_config(arguments)
    assert trainer.seed == 7
    assert (config.actions, config.false_alarms) == (["warn"], 1e-4)
    keywords = {"prompts": held_out(), **HOSTS[name].settings, **vars(config)}
    guard = HOSTS[name].run(tmp_path, steps=2, guard=keywords).guard
    assert [probe.step for probe in guard.history] == [0, 2]
    assert guard.config == config


class Data(L.LightningDataModule):
    def train_dataloader(self):
        return batches()


CALLBACK = "passk_guard.integrations.lightning.PassKGuardCallback"


def cli(config):
    """The guard after ``main.py fit --config ...``."""
    trainer = LightningCLI(Automatic, Data, args=["fit", "--config", str(config)]).trainer
    (callback,) = (c for c in trainer.callbacks if CALLBACK.endswith(type(c).__name__))
    return callback


@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter is intended")
def test_lightning_cli_runs_from_yaml_and_again_from_what_it_saved(tmp_path, monkeypatch):
    code = "from trl_runs import near_answer as verify\nfrom passk_guard import HFPolicy\n"
    code += "def policy(m):\n    return HFPolicy(m.model, m.tokenizer, max_completion_length=2)\n"
    (tmp_path / "my_module.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    rows = [json.dumps(row) for row in held_out()]
    (tmp_path / "held_out.jsonl").write_text("\n".join(rows))
    guard = {
        **TINY,
        "prompts": str(tmp_path / "held_out.jsonl"),
        "anchor_prompts": [{"prompt": "1 2 =", "answer": "0 3"}],
        "reward_funcs": "my_module.verify",
        "policy": "my_module.policy",
        "action": ["warn", "mix"],
        "floor": 0.01,
        "parameters": "layers",
    }
    trainer = {
        "max_steps": 4,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": str(tmp_path / "saved"),
        "callbacks": [{"class_path": CALLBACK, "init_args": guard}],
    }
    (tmp_path / "first.yaml").write_text(
        yaml.safe_dump({"seed_everything": 42, "trainer": trainer})
    )
    first = cli(tmp_path / "first.yaml")
    assert [probe.step for probe in first.guard.history] == [0, 2, 4]
    assert not first.guard.failures
    assert (first.config.actions, first.config.floor) == (["warn", "mix"], 0.01)
    saved = (tmp_path / "saved" / "config.yaml").rename(tmp_path / "second.yaml")
    second = cli(saved)
    assert second.config == first.config
    assert [p.pass_at_1 for p in second.guard.history] == [p.pass_at_1 for p in first.guard.history]


def test_lightning_cli_shows_types_and_help_and_names_what_it_does_not_know(capsys):
    parser = LightningArgumentParser()
    parser.add_class_arguments(pydoc.locate(CALLBACK), "guard")
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--guard.every EVERY optimizer steps between probes" in shown
    assert "(type: int | null)" in shown
    assert "--guard.prompts PROMPTS held-out pool" in shown
    with pytest.raises(SystemExit):
        parser.parse_args(["--guard.evry", "3"])
    assert "evry" in capsys.readouterr().err
    given = parser.parse_args(["--guard.k", "3", "--guard.every", "null"])
    assert parser.instantiate(given).guard.config == PassKGuardConfig(k=3)
