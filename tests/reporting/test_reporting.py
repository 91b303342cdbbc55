"""Tables and records of a real history."""

import json
from dataclasses import replace

import numpy as np
import pytest
from guarded_bandit import CONTEXTS, ascend, make_guard
from places import ROOT
from tiny import BanditPolicy

from passk_guard.look import Rescore
from passk_guard.reporting import run_table
from passk_guard.reporting.run_table import run_summary
from passk_guard.reporting.scalars import scalars
from passk_guard.reporting.snapshot import Snapshot
from passk_guard.reporting.table import history_table, selected
from passk_guard.statistics.levels import Reading
from passk_guard.statistics.track import Track


def conflict_history():
    """Probes of a bandit that is trained into a conflict."""
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    size = {"reference_prompts": CONTEXTS, "num_generations": 32}
    guard = make_guard(policy, **size, action=lambda probe, guard: None)
    for step in range(0, 60, 5):
        guard.probe(step)
        ascend(policy, 1, 5, lr=-40.0)
    assert any(p.alarm for p in guard.history)
    return guard.history


@pytest.fixture(scope="module")
def history():
    return conflict_history()


def test_table_shows_every_probe_and_the_alarm(history):
    lines = history_table(history).splitlines()
    assert len(lines) == len(history) + 2
    assert sum("ALARM: " in line for line in lines) == 1
    assert "pass@4" in lines[0]


def test_of_a_long_run_the_alarms_the_ends_and_evenly_thinned_probes_are_shown(history):
    calm = next(p for p in history if p.alarm is None)
    alarm = next(p for p in history if p.alarm is not None).alarm
    long = [replace(calm, step=i, alarm=alarm if i in (33, 34) else None) for i in range(100)]
    between = [rescored(step=51, alarm=alarm), rescored(step=53, alarm=None)]
    shown = selected(long, between)
    steps = [look.step for look in shown]
    assert len(steps) == 20
    assert {0, 33, 34, 51, 99} <= set(steps)
    assert 53 not in steps
    assert steps == sorted(steps)
    assert max(np.diff(steps)) <= 9  # evenly
    assert selected(long[:20], []) == long[:20]
    everywhere = [replace(probe, alarm=alarm) for probe in long]
    assert selected(everywhere, []) == everywhere
    assert "ALARM: " in history_table(shown).splitlines()[2 + steps.index(51)]


def rescored(**values):
    track = Track(0.5, 0.01, 0.48, 0.52, 0.6, -0.1, 0.01)
    return Rescore(
        **{
            "reading": Reading(track, {}, None, None),
            "conflicts": (),
            "cause": None,
            "cleared": False,
        },
        **{"seconds": 1.0, **values},
    )


def test_a_summary_names_what_it_leaves_out_and_where_there_is_more(history, tmp_path):
    long = [replace(history[0], step=i, alarm=None) for i in range(25)]
    journal = tmp_path / "a run" / "passk_guard.jsonl"
    assert "More" not in run_summary(long, [], journal)  # nothing was written
    journal.parent.mkdir()
    journal.touch()
    text = run_summary(long, [], journal)
    assert "(5 of 25 probes are left out here.)" in text
    assert f"More: passk-guard report '{journal.parent}'" in text
    assert "left out" not in run_summary(history, [])
    assert "\x1b" not in text  # pytest's stderr is no terminal


@pytest.mark.needs("rich")
@pytest.mark.parametrize("error", [ImportError, RuntimeError])
def test_without_rich_the_table_is_plain(history, monkeypatch, error):
    def missing():
        raise error

    monkeypatch.setattr(run_table, "is_terminal", lambda: True)
    assert "\x1b[" in run_summary(history, [])
    monkeypatch.setattr(run_table, "import_rich", missing)
    assert run_summary(history, []).strip() == history_table(history)


def test_every_logged_key_is_in_the_documented_table(history):

    import passk_guard.reporting.scalars as module

    page = (ROOT / "docs/alarms.md").read_text()
    for key in scalars(history[-1]):
        assert key in module.__doc__
        assert f"`{key.removeprefix('passk_guard/')}`" in page or f"`{key}`" in page


def test_missing_values_are_left_out(history):
    assert "passk_guard/drift" not in scalars(history[0])
    assert all(isinstance(v, float) for v in scalars(history[-1]).values())


def without_signal(probe):
    return replace(probe, update_alignment=None, gramian=None, curve=[])


def test_a_snapshot_survives_json(history):
    shown = Snapshot.of(history[-1])
    record = json.loads(json.dumps(shown.record(), allow_nan=False))
    again = Snapshot.read(shown.step, shown.k, record)
    for name, places in (("curve", 3), ("pass_rates", 3), ("agreement", 3), ("cosines", 2)):
        one, two = getattr(shown, name), getattr(again, name)
        assert one.shape == two.shape
        assert np.nanmax(np.abs(one - two)) <= 0.51 * 10**-places
    assert again.rows.tolist() == shown.rows.tolist()
    assert (again.cosines == again.cosines.T).all()
    empty = Snapshot.of(without_signal(history[-1]))
    assert Snapshot.read(0, 4, json.loads(json.dumps(empty.record()))).rows.shape == (0,)


@pytest.mark.simulation
def test_the_interval_of_pass_at_k_covers_what_other_prompts_would_have_given():
    policy = BanditPolicy(CONTEXTS, dim=3, seed=5)
    probes = [make_guard(policy, seed=seed).probe(0) for seed in range(60)]
    seen = np.std([p.pass_at_k for p in probes], ddof=1)
    # A quarter of the pool is drawn, without replacement: a little less than of all prompts alike.
    assert 0.6 < seen / np.mean([p.solved_in_k.se for p in probes]) < 1.1
