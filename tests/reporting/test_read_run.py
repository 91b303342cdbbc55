"""A run read back from its JSONL: what it comes to, and the command that says so."""

import json
import re

import pytest
from guarded_bandit import CONTEXTS, ascend, make_guard
from tiny import BanditPolicy

from passk_guard.cli.main import main
from passk_guard.reporting.journal import FILE_NAME, Journal
from passk_guard.reporting.read_run import read_run
from passk_guard.reporting.report import begin_run, end_run, publish
from passk_guard.reporting.summary import summary

QUIET = {"reference_prompts": CONTEXTS, "num_generations": 32, "action": lambda probe, guard: None}


def run_bandit(folder, *, lr=0.0, probes=4, end=True, policy=None, **settings):
    """A guarded run of a bandit, on pass@5; a negative rate goes against it."""
    policy = policy or BanditPolicy(CONTEXTS, dim=3, seed=5)
    guard = make_guard(policy, **{**QUIET, **settings})
    journal = Journal(folder)
    begin_run(guard, journal, 0, "Loop")
    for step in range(0, 5 * probes, 5):
        publish(guard.probe(step), guard, journal, lambda report: None)
        if lr:
            ascend(policy, 1, 5, lr=lr)
            publish(guard.rescore(step + 2), guard, journal, lambda report: None)
    if end:
        end_run(guard, journal, 5 * probes)
    return guard


def test_a_healthy_run(tmp_path):
    guard = run_bandit(tmp_path)
    run = read_run(tmp_path)
    found = summary(run)
    assert found["verdict"] == "healthy"
    assert found["sentence"].startswith(
        "No conflict in 4 looks. Pass@1 of the pool has changed by "
    )
    assert (found["state"], found["trainer"], found["probes"]) == ("ended", "Loop", 4)
    assert found["step"] == 20  # where it ended, not where it was last looked at
    track, probe = guard.history[-1].track, guard.history[-1]
    assert found["pass_at_1"]["now"] == track.pass_at_1
    assert found["pass_at_1"]["start"] == pytest.approx(track.reference)
    assert found["pass_at_k"] == {
        "k": 4,
        "start": guard.history[0].pass_at_k,
        "now": probe.pass_at_k,
        "low": pytest.approx(max(0, probe.pass_at_k - 1.96 * probe.solved_in_k.se)),
        "high": pytest.approx(min(1, probe.pass_at_k + 1.96 * probe.solved_in_k.se)),
    }
    assert found["config"]["action"] == "<lambda>"
    assert found["conflict"] is None
    assert [shown.step for shown in run.pictures] == [0, 15]  # the first, and the last at the end


@pytest.fixture(scope="module")
def conflict(tmp_path_factory):
    """A run with an open conflict, that was killed."""
    folder = tmp_path_factory.mktemp("conflict")
    run_bandit(folder, lr=-40.0, probes=9, end=False)
    return read_run(folder)


def test_a_conflict_that_is_open(conflict):
    found = summary(conflict)
    (alarm,) = conflict.alarms
    assert found["verdict"] == "conflict"
    assert found["sentence"].startswith(f"Pass@1 is below its floor, since step {alarm['step']}.")
    assert [alarm["message"] for alarm in found["alarms"]] == [alarm["message"]]
    assert found["conflict"]["pairs"]
    assert found["state"] == "running, or killed"
    assert found["rescores"] == 9


def test_a_loss_short_of_an_alarm_is_not_called_healthy(tmp_path):
    guard = run_bandit(tmp_path, lr=-15.0, probes=6, false_alarms=1e-9)
    assert not any(look.alarm for look in (*guard.history, *guard.rescores))
    found = summary(read_run(tmp_path))
    assert found["verdict"] == "falling"
    assert "probably fallen" in found["sentence"]


def test_a_conflict_that_has_cleared(tmp_path):
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    guard = make_guard(policy, **QUIET)
    journal, step = Journal(tmp_path), 0
    for lr, until in ((-40.0, True), (40.0, False)):
        while not guard.history or guard.history[-1].conflict is not until:
            publish(guard.probe(step), guard, journal, lambda report: None)
            ascend(policy, 1, 5, lr=lr)
            step += 5
    found = summary(read_run(tmp_path))
    assert found["verdict"] == "cleared"
    assert "it has cleared" in found["sentence"]
    assert found["config"] == {}  # no start line: an older file


def test_no_signal(tmp_path):
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    policy.right[:] = 9  # none of its actions
    guard = run_bandit(tmp_path, policy=policy, probes=2)
    assert not guard.failures
    found = summary(read_run(tmp_path))
    assert found["verdict"] == "no signal"
    assert "100% of the prompts" in found["sentence"]
    assert found["cosine"]["now"] is None


class Broken(BanditPolicy):
    error: Exception = RuntimeError("the verifier fell over")

    def generate(self, rows, row_ids, n):
        raise self.error


@pytest.mark.usefixtures("faults")
@pytest.mark.filterwarnings("ignore:passk-guard. step .* this probe is lost")
def test_a_run_whose_probes_are_all_lost_says_why(tmp_path):
    run_bandit(tmp_path, policy=Broken(CONTEXTS, dim=3, seed=5), probes=2)
    found = summary(read_run(tmp_path))
    assert found["verdict"] == "lost"
    reason = "RuntimeError: the verifier fell over"
    assert found["lost"] == [{"step": 0, "reason": reason}, {"step": 5, "reason": reason}]
    assert found["step"] == 10


@pytest.mark.usefixtures("faults")
@pytest.mark.filterwarnings("ignore:passk-guard. step .* this probe is lost")
def test_an_error_without_text_says_where_it_was_raised(tmp_path):
    policy = Broken(CONTEXTS, dim=3, seed=5)
    policy.error = StopIteration()
    run_bandit(tmp_path, policy=policy, probes=1)
    [lost] = summary(read_run(tmp_path))["lost"]
    assert re.fullmatch(r"StopIteration at test_read_run\.py:\d+", lost["reason"])


def test_the_guard_that_acts_is_named(conflict, tmp_path):
    path, lines = tmp_path / FILE_NAME, conflict.path.read_text()
    path.write_text(lines.replace('"pass1_weight": 0.0', '"pass1_weight": 0.25'))
    assert "The guard acts: λ" in summary(read_run(path))["sentence"]
    path.write_text(lines.replace('"k": 4.0', '"k": 2.5'))
    assert "k is 2.5 instead of 4" in summary(read_run(path))["sentence"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ('"alignment", "level"', "Training works against pass@1, since step"),
        ('"level of math", "level of code"', "Pass@1 of math, code is below its floor, since"),
    ],
)
def test_the_sentence_says_what_is_open(conflict, tmp_path, names, said):
    lines = conflict.path.read_text().replace('"open": ["level"]', f'"open": [{names}]')
    lines = lines.replace('"leading": []', '"leading": ["alignment"]')
    (tmp_path / FILE_NAME).write_text(lines)
    assert summary(read_run(tmp_path))["sentence"].startswith(said)


def test_since_when_is_of_what_is_open_now(conflict, tmp_path):
    """A leading alarm, then a loss, then the update has turned: the loss is younger."""
    lines = conflict.path.read_text().splitlines()
    looks = [i for i, line in enumerate(lines) if '"open": ["level"]' in line]
    lines[looks[0]] = lines[looks[0]].replace('"open": ["level"]', '"open": ["alignment"]')
    (tmp_path / FILE_NAME).write_text("\n".join(lines))
    said = summary(read_run(tmp_path))["sentence"]
    step = json.loads(lines[looks[1]])["step"]
    assert step > json.loads(lines[looks[0]])["step"]
    assert said.startswith(f"Pass@1 is below its floor, since step {step}.")


def test_what_was_cut_off_or_is_foreign_is_left_out_and_counted(tmp_path):
    run_bandit(tmp_path, end=False)
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(b'[1]\n"text"\n{"step": 3}\n\xff\xfe\n{"step": 20, "look": "pro')
    run = read_run(tmp_path)
    assert run.damaged == 5
    assert len(run.looks) == 4
    (tmp_path / FILE_NAME).write_text("")
    assert summary(read_run(tmp_path))["verdict"] == "empty"


def test_json_on_the_command_line_is_the_summary(tmp_path, capsys):
    run_bandit(tmp_path)
    assert main(["report", str(tmp_path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(summary(read_run(tmp_path))))


def test_a_missing_run_names_the_runs_that_are_near(tmp_path, capsys):
    run_bandit(tmp_path / "mine", probes=1)
    assert main(["report", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path} holds no passk_guard.jsonl" in said
    assert f"There are runs below it: {tmp_path / 'mine'}." in said
    assert main(["report", str(tmp_path / "none"), "--json"]) == 1
    assert "output_dir, or default_root_dir with Lightning" in capsys.readouterr().err
