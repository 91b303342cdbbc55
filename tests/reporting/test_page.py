"""The report's page (its pictures need matplotlib): valid, whole, and deaf to what prompts hold."""

from extras import needs

needs("trl", "lightning", "matplotlib", "html5lib")

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from itertools import cycle

import html5lib
import pytest
from test_read_run import Broken, run_bandit
from test_report import HOSTILE
from tiny import BanditPolicy

from passk_guard import HeldOutPool, PassKGuard, PassKGuardConfig
from passk_guard.cli.main import main
from passk_guard.reporting.journal import FILE_NAME, Journal
from passk_guard.reporting.page import page
from passk_guard.reporting.read_run import read_run
from passk_guard.reporting.report import publish
from passk_guard.reporting.snapshot import Snapshot
from passk_guard.reporting.summary import summary
from passk_guard.reporting.visible import visible


def parsed(html):
    """The page's elements; any error that the HTML standard names fails."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    return parser.parse(html)


def texts(tree, tag):
    return ["".join(element.itertext()) for element in tree.iter(tag)]


@pytest.fixture(scope="module")
def conflict(tmp_path_factory):
    """A run with an alarm, its prompts quoted; and its page."""
    folder = tmp_path_factory.mktemp("runs") / "bandit"
    run_bandit(folder, lr=-40.0, probes=9, log_prompts=True, watch="target_k")
    return folder, page(read_run(folder))


def test_the_page_of_a_conflict_has_everything(conflict):
    folder, html = conflict
    tree = parsed(html)
    (verdict,) = [p for p in tree.iter("p") if "verdict" in p.get("class", "")]
    assert "".join(verdict.itertext()).startswith("Pass@1 is below its floor, since step ")
    run = read_run(folder)
    courses = 2 + any(look.get("cosine_low") is not None for look in run.looks)
    at = {shown.step for shown in run.pictures if shown.step <= run.alarms[0]["step"]}
    probes = {max(at), run.pictures[-1].step}  # at the alarm, and the last
    assert len(list(tree.iter("figure"))) == courses + 3 * len(probes)
    pairs, prompts, looks, settings = tree.iter("table")
    first = run.conflict["pairs"][0]
    row = texts(pairs, "td")[:6]
    assert row[0] == f"{first['first']['row']} / {first['second']['row']}"
    assert row[1] == f"{first['cosine']:+.2f}".replace("-", "−")
    assert row[5] == first["first"]["prompt"] + first["second"]["prompt"]
    assert len(texts(prompts, "tr")) == len(run.conflict["prompts"]) + 1
    assert len(texts(looks, "tr")) == len(run.looks) + 1
    assert ["k", "4"] in [texts(tr, "td") for tr in settings.iter("tr")]
    (alarm,) = run.alarms
    assert alarm["message"] in texts(tree, "bdi")


def test_the_heat_map_can_be_read_out(conflict):
    folder, html = conflict
    shown = read_run(folder).pictures[-1]
    kernels = [json.loads(s) for s in texts(parsed(html), "script")[:-2]]
    assert kernels[-1]["rows"] == shown.rows.tolist()
    again = Snapshot.read(0, 4, {**shown.record(), "cosines": kernels[-1]["cosines"]})
    assert (again.cosines == shown.cosines).all()
    left, top, width, height = kernels[-1]["box"]
    assert 0 < left < left + width < 1
    assert 0 < top < top + height < 1


def test_the_page_needs_nothing_and_may_run_nothing_else(conflict):
    _, html = conflict
    tree = parsed(html)
    addresses = [e.get(a) for e in tree.iter() for a in ("src", "href") if e.get(a) is not None]
    assert {a[:5] for a in addresses if not a.startswith("#")} == {"data:"}
    (policy,) = [m.get("content") for m in tree.iter("meta") if m.get("http-equiv")]
    assert policy.startswith("default-src 'none'; img-src data:;")
    script = texts(tree, "script")[-1]
    own = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{own}';" in policy
    for name in re.findall(r"var\(--(\w+)\)", html):
        assert f"--{name}:" in html
    for uri in (a for a in addresses if a.startswith("data:")):
        svg = base64.b64decode(uri.partition(",")[2]).decode()
        assert "#010203" not in svg
        assert "prefers-color-scheme" in svg


def poisoned(lines):
    """The run as it would be if every text in it meant harm."""
    prompts = cycle(HOSTILE)
    everything = " ".join(HOSTILE)
    for line in lines:
        record = json.loads(line)
        if "message" in record:
            record |= {"message": everything, "fired": [f"level of {everything}"]}
        conflict = record.get("conflict", {"prompts": [], "pairs": []})
        for one in conflict["prompts"]:
            one["prompt"] = next(prompts)
        for pair in conflict["pairs"]:
            pair["first"]["prompt"], pair["second"]["prompt"] = next(prompts), next(prompts)
        texts = record.get("turnover", {}).get("texts", {})
        texts |= dict.fromkeys(texts, everything)
        if record["look"] == "start":
            record |= {"trainer": everything, "version": everything}
            record["config"] |= {"action": everything, everything: everything}
        yield json.dumps(record)
    for reason in HOSTILE:
        yield json.dumps({"step": 0, "look": "lost", "reason": reason})


def test_hostile_text_is_shown_and_never_run(conflict, tmp_path):
    folder, html = conflict
    lines = (folder / FILE_NAME).read_text().splitlines()
    run = tmp_path / "<script>alert(1)<"
    run.mkdir()
    (run / FILE_NAME).write_text("\n".join(poisoned(lines)))
    tree, harmless = parsed(page(read_run(run))), parsed(html)
    tags, wanted = ([e.tag for e in one.iter()] for one in (tree, harmless))
    for tag in ("script", "img", "style", "svg", "iframe", "code", "strong"):
        assert tags.count(tag) == wanted.count(tag) + (tag == "code")  # a keyword more
    assert tags.count("a") == wanted.count("a") + 1  # to the lost probes
    assert not [a for e in tree.iter() for a in e.attrib if a.startswith("on")]
    shown = {visible(prompt, 400) for prompt in HOSTILE}
    everything = visible(" ".join(HOSTILE), 5000)
    assert set(texts(tree, "bdi")) == shown | {everything}
    assert {f"Step 0: {one}" for one in shown} <= set(texts(tree, "li"))
    for script in texts(tree, "script")[:-1]:
        json.loads(script)
    assert set(json.loads(texts(tree, "script")[-2]).values()) <= shown


def test_groups_have_a_table_and_their_labels_are_text(tmp_path):
    policy = BanditPolicy(64, dim=3, seed=5)
    labels = ("<b>easy</b>", "a | b")
    rows = [{"prompt": str(i), "kind": labels[i % 2]} for i in range(64)]
    config = PassKGuardConfig(k=4, reference_prompts=16, every=5, group_by="kind")
    guard = PassKGuard(policy, HeldOutPool(rows), config, isolation=policy.isolated)
    publish(guard.probe(0), guard, Journal(tmp_path), lambda report: None)
    found = summary(read_run(tmp_path))["groups"]
    groups = guard.history[0].groups
    assert found == {label: {"now": groups[label].pass_at_1, "change": 0.0} for label in labels}
    table = next(parsed(page(read_run(tmp_path))).iter("table"))
    assert texts(table, "td")[::3] == list(found)


@pytest.mark.usefixtures("faults")
@pytest.mark.filterwarnings("ignore:passk-guard. step .* this probe is lost")
def test_runs_with_little_to_show_have_a_page_all_the_same(tmp_path):
    silent = BanditPolicy(64, dim=3, seed=5)
    silent.right[:] = 9
    run_bandit(tmp_path / "silent", policy=silent, probes=2)
    run_bandit(tmp_path / "lost", policy=Broken(64, dim=3, seed=5), probes=2)
    run_bandit(tmp_path / "one look", probes=1, end=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / FILE_NAME).write_text("{")
    for name, verdict in (
        ("silent", "No signal"),
        ("lost", "No probe came through: 2 lost"),
        ("one look", "No conflict in 1 look."),
        ("empty", "Nothing has been measured yet."),
    ):
        tree = parsed(page(read_run(tmp_path / name)))
        (said,) = [p for p in tree.iter("p") if "verdict" in p.get("class", "")]
        assert "".join(said.itertext()).startswith(verdict)
        ids = [e.get("id") for e in tree.iter() if e.get("id")]
        assert len(ids) == len(set(ids))
        targets = {e.get("href")[1:] for e in tree.iter("a")}
        assert targets <= set(ids)


def test_the_command_writes_the_page_beside_the_run(conflict, tmp_path, capsys):
    folder, _ = conflict
    run = shutil.copytree(folder, tmp_path / "a run")
    assert main(["report", str(run)]) == 0
    out = capsys.readouterr().out
    assert out.endswith(f"{run / 'passk_guard.html'}\n")
    parsed((run / "passk_guard.html").read_text())
    elsewhere = tmp_path / "new" / "page.html"
    assert main(["report", str(run), "--out", str(elsewhere)]) == 0
    assert elsewhere.read_text() == (run / "passk_guard.html").read_text()
    assert main(["report", str(run), "--out", str(run)]) == 1  # a folder
    assert "passk-guard report: " in capsys.readouterr().err


def test_without_matplotlib_it_says_what_to_install(conflict, monkeypatch, capsys):
    for name in [n for n in sys.modules if n.startswith("passk_guard.reporting.")]:
        if name.rpartition(".")[2] in ("page", "course", "figures", "svg"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["report", str(conflict[0])]) == 1
    assert "pip install 'passk-guard[report]'" in capsys.readouterr().err


def test_the_installed_command_runs(conflict):
    command = [sys.executable, "-c", "from passk_guard.cli.main import main; exit(main())"]
    found = subprocess.run(
        [*command, "report", str(conflict[0]), "--json"], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["verdict"] == "conflict"
