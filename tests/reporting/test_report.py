"""What a run leaves behind, read back: TensorBoard events, JSONL, prompts that mean harm."""

from extras import needs

needs("trl", "lightning", "matplotlib")

import json
import re
import warnings
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from guarded_bandit import make_guard
from hosts import HOSTS, settings
from lightning.pytorch.loggers import TensorBoardLogger
from lightning_runs import Automatic, fit, guard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from trl import GRPOConfig
from trl_runs import GUARD, held_out, make_trainer, train

from passk_guard import PassKGuardWarning
from passk_guard.integrations.trl import PassKGuardCallback
from passk_guard.prompts.identity import prompt_text
from passk_guard.reporting.conflicts import Conflicts, PairConflict, PromptConflict
from passk_guard.reporting.journal import Journal
from passk_guard.reporting.markdown import alarm_card, conflict_table, escaped
from passk_guard.reporting.report import publish

with warnings.catch_warnings():  # of its vendored parser
    warnings.simplefilter("ignore", DeprecationWarning)
    from tensorboard.plugin_util import markdown_to_safe_html

ALARM = {"floor": 0.99}
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "| a | b |\n|---|---|",
    "`code` ```\nblock\n```",
    "# heading\n\n* item\n1. item\n---",
    "[link](javascript:alert(1)) ![image](http://example.org/x.png) http://example.org",
    "**bold** __bold__ ~~struck~~ $x$ \\( y \\) &lt; &amp;amp; {{x}}",
    "\u202eright to left\u202c \u2067isolated\u2069 שלום",
    "zero\x00 bell\x07 escape\x1b[31m line\u2028separator",
]


class Seen(HTMLParser):
    """Tags, and text as it is read."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.cells, self.text, self.inside = set(), [], "", False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.inside = tag == "td"
        if self.inside:
            self.cells.append("")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "td"

    def handle_data(self, data):
        self.text += data
        if self.inside:
            self.cells[-1] += data


@pytest.mark.parametrize("prompt", HOSTILE)
def test_hostile_prompts_are_shown_and_never_rendered(prompt):
    def visible(text):  # what a reader is to see
        spelt = [c.encode("unicode_escape").decode() if not c.isprintable() else c for c in text]
        return "".join(spelt)

    one, two = (PromptConflict(i, 0.5, -1.0, 1.0, -0.1, 1) for i in range(2))
    found = Conflicts((3,), (one,), (PairConflict(one, two, -0.9, -0.1, 1),))
    rows = [{"prompt": prompt}, {"prompt": [{"role": "user", "content": prompt}]}]
    table = Seen(markdown_to_safe_html(conflict_table(found, rows)))
    assert table.tags <= {"p", "em", "strong", "table", "thead", "tbody", "tr", "th", "td"}
    assert len(table.cells) == 7 + 6  # no cell more than there are columns
    assert table.cells[6].strip() == f"{visible(prompt)} / {visible(prompt)}"
    assert table.cells[12].strip() == visible(prompt)
    card = Seen(markdown_to_safe_html(alarm_card(f"step 3: {prompt}")))
    assert card.tags == {"p", "strong"}
    assert visible(prompt) in card.text


def test_long_prompts_are_cut_before_they_are_escaped():
    assert escaped("<" * 1000, 10) == "&#60;" * 9 + "…"
    assert prompt_text({"prompt": ["a", "b"]}) == "['a', 'b']"


def tensors(events, tag):
    return {e.step: e.tensor_proto.string_val[0] for e in events.Tensors(tag)}


def check_events(folder, prefix, steps, quoted):
    """Everything that a run with an alarm at the first probe leaves in TensorBoard."""
    events = EventAccumulator(str(folder)).Reload()
    tags = events.Tags()
    for name in ("track_low", "track_high"):
        assert [e.step for e in events.Scalars(f"{prefix}passk_guard/{name}")] == steps
    (config,) = tensors(events, "custom_scalars__config__").values()
    (category,) = Layout.FromString(config).category
    for chart in category.chart:
        for series in chart.margin.series:
            wanted = {series.value, series.lower, series.upper}
            assert len(wanted) == 3
            assert wanted <= set(tags["scalars"])
        for pattern in chart.multiline.tag:
            assert sum(bool(re.search(pattern, tag)) for tag in tags["scalars"]) == 1, pattern
    assert {"passk_guard/interference", "passk_guard/agreement"} <= set(tags["images"])
    assert [e.step for e in events.Images("passk_guard/interference")] == steps[:1]
    cards = tensors(events, "passk_guard/alarm/text_summary")
    assert list(cards) == steps[:1]
    assert b"pass&#64;1 is at risk" in cards[steps[0]]
    table = tensors(events, "passk_guard/conflicts/text_summary")[steps[0]].decode()
    assert "| rows | pass rate |" in table
    assert ("script" in table) == quoted
    assert "<script" not in table + cards[steps[0]].decode()


@pytest.mark.parametrize("quoted", [True, False], ids=["log_prompts", "row ids"])
def test_a_real_run_leaves_texts_images_and_charts_in_tensorboard(tmp_path, monkeypatch, quoted):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "tb"))
    config = {"report_to": "tensorboard"}
    if "logging_dir" in GRPOConfig.__dataclass_fields__:  # transformers 4 has no such variable
        config["logging_dir"] = str(tmp_path / "tb")
    trainer = make_trainer(tmp_path, **config)
    rows = held_out().map(lambda row: {"prompt": f"<script>alert(1)</script> {row['prompt']}"})
    more = {"action": lambda probe, guard: None, "log_prompts": quoted, **ALARM}
    train(trainer, PassKGuardCallback(trainer, prompts=rows, **GUARD, **more))
    check_events(tmp_path / "tb", "train/", [0, 2, 4], quoted)
    journal = (tmp_path / "passk_guard.jsonl").read_text()
    assert ("script" in journal) == quoted


def test_lightning_leaves_the_same(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="tb")
    callback = guard(action=lambda probe, guard: None, reference_prompts=64, **ALARM)
    fit(tmp_path, Automatic(), callback, logger=logger)
    check_events(logger.log_dir, "", [0, 2, 4], quoted=False)


def read_lines(folder):
    return [json.loads(s) for s in (folder / "passk_guard.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", HOSTS)
def test_every_look_is_a_line_of_jsonl_without_any_reporter(tmp_path, name):
    host = HOSTS[name]
    quiet = {"action": lambda probe, guard: None, **ALARM}
    found = host.run(tmp_path, guard=settings(host, **quiet)).guard
    start, *lines, end = read_lines(tmp_path)
    assert (start["look"], start["step"], start["config"]["k"]) == ("start", 0, found.config.k)
    assert (end["look"], end["step"]) == ("end", 6)
    assert [line["step"] for line in lines] == [0, 2, 4, 6]
    for line, probe in zip(lines, found.history, strict=True):
        assert line["look"] == "probe"
        assert line["track"] == probe.track.pass_at_1
        assert line["track_low"] <= line["track"] <= line["track_high"]
        assert line["open"] == list(probe.conflicts)
        assert ("conflict" in line) == probe.conflict
    assert lines[0]["message"] == found.history[0].alarm.message
    worst = lines[0]["conflict"]["prompts"][0]
    assert worst["row"] == found.history[0].alarm.prompts[0]
    assert all("prompt" not in p for p in lines[0]["conflict"]["prompts"])
    assert lines[0]["conflict"]["pairs"][0]["cosine"] < 0


@pytest.mark.usefixtures("faults")
def test_a_look_that_cannot_be_reported_costs_a_warning(tmp_path):
    guard = make_guard(reference_prompts=48, action=lambda probe, guard: None)
    probe = replace(guard.probe(0), gramian=None, conflicts=("level",))
    guard.history[:] = [probe]
    sent = []
    with pytest.warns(PassKGuardWarning, match="step 0 could not be reported"):
        publish(probe, guard, Journal(tmp_path), sent.append)
    assert not sent
    assert not list(tmp_path.iterdir())
