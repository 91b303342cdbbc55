"""Two runs in one folder: each has a journal of its own, and each report is of one run."""

import json

import pytest
from guarded_bandit import ascend, make_guard

from passk_guard import PassKGuardWarning
from passk_guard.cli.main import main
from passk_guard.reporting.journal import FILE_NAME, Journal
from passk_guard.reporting.read_run import read_run
from passk_guard.reporting.report import begin_run, end_run, publish
from passk_guard.reporting.summary import summary

QUIET = {"reference_prompts": 64, "num_generations": 32, "action": lambda probe, guard: None}
OURS = "another run writes to .* This one goes on in .*passk_guard\\.[0-9a-f]{8}-[0-9a-f]{4}"


class Pod:
    """A process that trains in a folder, as far as its journal can tell."""

    def __init__(self, folder, trainer, state=None, step=0):
        self.guard = make_guard(**QUIET)
        if state is not None:
            self.guard.load_state_dict(state)
        self.journal = Journal(folder)
        self.trainer = trainer
        self.first = step

    def begin(self):
        begin_run(self.guard, self.journal, self.first, self.trainer)
        return self

    def look(self, *steps):
        for step in steps:
            publish(self.guard.probe(step), self.guard, self.journal, lambda report: None)
        return self


def steps_of(path):
    run = read_run(path)
    return run.start["trainer"], [look["step"] for look in run.looks]


def own_file(folder):
    (path,) = folder.glob("passk_guard.*-*.jsonl")
    return path


def test_a_new_run_begins_while_the_old_one_writes(tmp_path):
    old = Pod(tmp_path, "old").begin().look(0, 5)
    new = Pod(tmp_path, "new").begin().look(0)
    with pytest.warns(PassKGuardWarning, match=OURS) as said:
        old.look(10)
    new.look(5)
    old.look(15)  # said once
    end_run(old.guard, old.journal, 20)
    assert len(said) == 1
    assert steps_of(tmp_path) == ("new", [0, 5])
    assert steps_of(f"{tmp_path}/{FILE_NAME}.old") == ("old", [0, 5])
    assert steps_of(own_file(tmp_path)) == ("old", [10, 15])
    assert old.guard.run_id in own_file(tmp_path).name
    assert old.journal.path == own_file(tmp_path)
    assert read_run(own_file(tmp_path)).end["step"] == 20
    assert read_run(tmp_path).end is None  # it has not ended


def test_a_successor_resumes_while_the_old_one_writes(tmp_path):
    """A preempted pod that still lives: both are one run, by their id."""
    old = Pod(tmp_path, "old").begin().look(0, 5)
    state = old.guard.state_dict()
    old.look(10)
    new = Pod(tmp_path, "new", state, 5).begin().look(10)
    assert new.guard.run_id == old.guard.run_id
    with pytest.warns(PassKGuardWarning, match=OURS):
        old.look(15)
    new.look(15)
    old.look(20)
    assert steps_of(tmp_path) == ("new", [0, 5, 10, 15])
    assert read_run(tmp_path).resumed == (5,)
    assert steps_of(own_file(tmp_path)) == ("old", [15, 20])


def test_a_successor_that_has_written_no_more_than_the_old_one(tmp_path):
    """The rewritten file may look like the old one's own; the first line tells."""
    old = Pod(tmp_path, "old").begin().look(0, 5)
    new = Pod(tmp_path, "new", old.guard.state_dict(), 5)
    new.journal.begin(5, new.guard.run_id)  # and is preempted in turn, for a moment
    old.look(10)
    with pytest.warns(PassKGuardWarning, match=OURS):
        new.journal.write({"step": 5, "look": "start", "trainer": "new"})
    new.look(10)
    assert steps_of(tmp_path) == ("old", [0, 5, 10])
    assert steps_of(own_file(tmp_path)) == ("new", [10])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_both_begin_at_once(tmp_path, order):
    pods = [Pod(tmp_path, name) for name in ("one", "two")]
    for pod in pods:  # neither finds a file
        pod.journal.begin(0, pod.guard.run_id)
    first, second = (pods[i] for i in order)
    first.journal.write({"step": 0, "look": "start", "trainer": "first"})
    with pytest.warns(PassKGuardWarning, match=OURS):
        second.journal.write({"step": 0, "look": "start", "trainer": "second"})
    for step in (0, 5):
        first.look(step)
        second.look(step)
    assert steps_of(tmp_path) == ("first", [0, 5])
    assert steps_of(own_file(tmp_path)) == ("second", [0, 5])


def test_one_that_collapses_is_not_hidden_by_one_that_is_healthy(tmp_path, capsys):
    old = Pod(tmp_path, "old").begin().look(0)
    new = Pod(tmp_path, "new").begin()
    with pytest.warns(PassKGuardWarning, match=OURS):
        old.look(5)
    for step in range(10, 50, 5):
        ascend(old.guard.policy, 1, 5, lr=-40.0)
        old.look(step)
    new.look(0, 5)
    assert summary(read_run(tmp_path))["verdict"] == "healthy"
    assert main(["report", str(own_file(tmp_path)), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "conflict"


@pytest.mark.needs("matplotlib")
def test_each_has_a_page_of_its_own(tmp_path, capsys):
    old = Pod(tmp_path, "old").begin().look(0)
    Pod(tmp_path, "new").begin()
    with pytest.warns(PassKGuardWarning, match=OURS):
        old.look(5)
    assert main(["report", str(own_file(tmp_path))]) == 0
    page = own_file(tmp_path).with_suffix(".html")
    assert capsys.readouterr().out.endswith(f"{page}\n")  # beside the other run's
    assert page.is_file()


def test_a_runs_own_journal_is_nobody_elses(tmp_path):
    """Resumed time and again, a disk that was full for a while: no false alarm."""
    pod = Pod(tmp_path, "a").begin().look(0, 5)
    for step in (5, 5, 0):
        pod = Pod(tmp_path, "a", pod.guard.state_dict(), step).begin().look(step + 5)
    with pytest.warns(PassKGuardWarning, match="could not be written"):
        pod.journal.write({"step": object()})
    with (tmp_path / FILE_NAME).open("a") as file:
        file.write('{"step": 7, "lo')  # so much of it went to the disk
    pod.look(15)
    assert [path.name for path in tmp_path.glob("passk_guard.*-*")] == []
    run = read_run(tmp_path)
    assert ([look["step"] for look in run.looks], run.damaged) == ([0, 5, 10, 5, 15], 1)


def test_what_has_no_place_left_costs_one_warning(tmp_path):
    old = Pod(tmp_path / "run", "old").begin().look(0)
    (tmp_path / "run" / FILE_NAME).unlink()
    (tmp_path / "run").rmdir()
    (tmp_path / "run").write_text("in the way")
    with pytest.warns(PassKGuardWarning, match="could not be written") as said:
        old.look(5, 10)
    assert len(said) == 1


def test_lines_of_other_runs_are_left_out_and_counted(tmp_path):
    lines = [
        {"step": 0, "look": "start", "run": "aa"},
        {"step": 0, "look": "lost", "run": "aa", "reason": "a"},
        {"step": 0, "look": "start", "run": "bb"},
        {"step": 1, "look": "lost", "reason": "of a release that named no run"},
        {"step": 5, "look": "lost", "run": "aa", "reason": "a"},
        {"step": 5, "look": "lost", "run": "bb", "reason": "b"},
        {"step": 6, "look": "end", "run": "bb"},
        {"step": 6, "look": "lost", "run": "aa", "reason": "a"},
    ]
    (tmp_path / FILE_NAME).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    run = read_run(tmp_path)
    assert (run.foreign, run.damaged, run.resumed) == (4, 0, ())
    assert [line["step"] for line in run.lost] == [1, 5]
    assert run.end is not None


def test_every_line_names_its_run(tmp_path):
    pod = Pod(tmp_path, "a").begin().look(0)
    lines = [json.loads(line) for line in (tmp_path / FILE_NAME).read_text().splitlines()]
    assert [line["run"] for line in lines] == [pod.guard.run_id] * 2
    assert lines[0]["began"] == pod.guard.began
    assert pod.guard.run_id != Pod(tmp_path, "b").guard.run_id
