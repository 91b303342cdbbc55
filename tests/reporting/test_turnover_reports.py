"""Prompts lost and won: in the journal, in what loggers get, and on the page."""

from extras import needs

needs("matplotlib", "html5lib")

import json

import html5lib
import torch
from guarded_bandit import CONTEXTS, make_guard
from test_report import HOSTILE as SEVERAL
from tiny import BanditPolicy

from passk_guard.reporting.journal import FILE_NAME, Journal
from passk_guard.reporting.page import page
from passk_guard.reporting.read_run import read_run
from passk_guard.reporting.report import begin_run, publish
from passk_guard.reporting.summary import summary

HOSTILE = " ".join(SEVERAL)


def run(folder, *, change=True, **settings):
    torch.manual_seed(0)
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    size = {"reference_prompts": CONTEXTS, "num_generations": 64}
    guard = make_guard(policy, **size, action=lambda probe, guard: None, **settings)
    for row in guard.pool.rows:
        row["prompt"] = HOSTILE
    journal, reports = Journal(folder), []
    begin_run(guard, journal, 0, "Loop")
    for step in range(0, 20, 5):
        publish(guard.probe(step), guard, journal, reports.append)
        if change and step == 0:
            with torch.no_grad():
                policy.weight -= 3.0 * policy.weight
    publish(guard.rescore(17), guard, journal, reports.append)
    return guard, reports


def section(folder):
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(
        page(read_run(folder))
    )
    (found,) = [s for s in tree.iter("section") if s.get("aria-labelledby") == "turnover"]
    assert "#turnover" in [a.get("href") for a in tree.iter("a")]
    return found


def test_rows_are_named_and_prompts_are_not(tmp_path):
    guard, reports = run(tmp_path)
    turnover = guard.history[-1].turnover
    record = reports[3].record
    assert record["turnover"] == vars(turnover)
    assert (record["lost_prompts"], record["won_prompts"]) == (
        len(turnover.lost),
        len(turnover.won),
    )
    assert "turnover" not in reports[-1].record  # a re-scoring samples nothing
    assert "lost_prompts" not in reports[-1].record
    assert "alert(1)" not in (tmp_path / FILE_NAME).read_text()
    text = reports[3].texts["passk_guard/turnover"]
    assert f"**Prompts lost**\n\n{', '.join(map(str, turnover.lost))}\n" in text
    shown = "".join(section(tmp_path).itertext())
    assert f"{len(turnover.lost)} have surely lost more than 10 points" in shown
    assert f"Rows {', '.join(map(str, turnover.lost))}." in shown
    found = summary(read_run(tmp_path))["turnover"]
    assert found == json.loads(json.dumps({"step": 15, **vars(turnover)}))


def test_prompts_are_quoted_where_that_is_asked_for(tmp_path):
    guard, reports = run(tmp_path, log_prompts=True)
    lost = guard.history[-1].turnover.lost
    assert len(lost) > 10
    shown = section(tmp_path)
    items = ["".join(li.itertext()) for li in shown.iter("li")]
    assert items[0].startswith(f"Row {lost[0]}: ")
    assert len(items) == 20
    assert f"And rows {', '.join(map(str, lost[10:]))}." in "".join(shown.itertext())
    text = reports[3].texts["passk_guard/turnover"]
    assert not set("<>[]`") & set(text)
    assert f"and {len(lost) - 20} more" in text


def test_a_page_says_that_none_was_lost(tmp_path):
    _, reports = run(tmp_path, change=False)
    assert "passk_guard/turnover" not in reports[3].texts
    shown = "".join(section(tmp_path).itertext())
    assert "none of 64 prompts with rollouts enough has surely lost or won" in shown


def test_at_the_first_look_there_is_no_such_section(tmp_path):
    run(tmp_path)
    path = tmp_path / FILE_NAME
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("\n".join(json.dumps(line) for line in lines if line["step"] == 0))
    assert summary(read_run(tmp_path))["turnover"] is None
    assert "Prompts lost and won" not in page(read_run(tmp_path))
