"""A verifier that has changed: in the journal, and in what a run comes to."""

import json

import pytest
from judged import Judge, make_guard

from passk_guard.reporting.journal import FILE_NAME, Journal
from passk_guard.reporting.read_run import read_run
from passk_guard.reporting.report import begin_run, publish
from passk_guard.reporting.summary import summary


@pytest.fixture(scope="module", params=[0.0, 0.1])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged")
    judge, journal = Judge(changed=request.param), Journal(folder)
    guard = make_guard(judge)
    begin_run(guard, journal, 0, "Loop")
    for step in range(0, 50, 5):
        judge.changes = step >= 25
        publish(guard.probe(step), guard, journal, lambda report: None)
    return guard, folder, request.param


def test_the_run_says_that_its_verifier_has_changed(run):
    guard, folder, changed = run
    found, drift = read_run(folder), guard.history[-1].verifier
    assert "verifier" not in found.probes[0]
    assert found.probes[-1]["verifier"] == json.loads(json.dumps(vars(drift)))
    sentence = summary(found)["sentence"]
    assert ("But the verifier has changed, at step 25 or so: " in sentence) == bool(changed)
    assert ("(0.0% before)" in sentence) == bool(changed)
    assert found.probes[-1]["states"] == (["verifier drift"] if changed else [])
    assert "note: verifier" not in sentence


def test_a_state_without_figures_is_told_all_the_same(run, tmp_path):
    _, folder, changed = run
    lines = [json.loads(line) for line in (folder / FILE_NAME).read_text().splitlines()]
    for line in lines:
        line.pop("verifier", None)
    (tmp_path / FILE_NAME).write_text("\n".join(map(json.dumps, lines)))
    sentence = summary(read_run(tmp_path))["sentence"]
    assert sentence.endswith(" But the verifier has changed.") == bool(changed)
