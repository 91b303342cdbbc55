"""What a probe refuses before it samples; one journal, one probe at a time."""

import json

import pytest
import torch
from tiny import BanditPolicy

from passk_guard import compare
from passk_guard.checkpoints.probe_journal import ProbeJournal
from passk_guard.checkpoints.probe_policy import probe_policy
from passk_guard.cli.verifiers import named_verifier
from passk_guard.errors import ProbeError
from passk_guard.rollouts.group import RolloutGroup
from passk_guard.runtime.progress import silent

ROWS = [{"prompt": str(i)} for i in range(32)]
SETTINGS = {"n": 4}


def groups(*rows):
    ones = torch.ones(4, 3, dtype=torch.long)
    return [RolloutGroup(i, ones, ones, ones, torch.tensor([1.0, 0, 1, 0])) for i in rows]


def facts(*rows):
    return [{"prompt_id": str(i)} for i in rows]


def test_of_two_that_write_to_one_journal_the_second_is_told(tmp_path):
    path = tmp_path / "probe.jsonl"
    first, second = ProbeJournal(path, SETTINGS), ProbeJournal(path, SETTINGS)
    second.add(groups(0, 1), facts(0, 1))
    with pytest.raises(ProbeError, match=r"another process has written to .*probe\.jsonl"):
        first.add(groups(0, 1), facts(0, 1))
    second.add(groups(2, 3), facts(2, 3))  # the other one goes on
    assert [group.row for group in ProbeJournal(path, SETTINGS).groups] == [0, 1, 2, 3]


def test_a_row_that_is_there_twice_is_damage(tmp_path):
    path = tmp_path / "probe.jsonl"
    ProbeJournal(path, SETTINGS).add(groups(0, 1), facts(0, 1))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, *lines[1:]]))
    with pytest.raises(ValueError, match="line 5: ValueError: row 0 is there twice"):
        ProbeJournal(path, SETTINGS)


def test_another_k_is_told_how_to_share_rollouts(tmp_path):
    path = tmp_path / "probe.jsonl"
    ProbeJournal(path, SETTINGS)
    with pytest.raises(ValueError, match="another k on the same rollouts say --num-generations 4"):
        ProbeJournal(path, {"n": 8})


class Scored(BanditPolicy):
    """Says what it has sampled, as text."""

    def generate(self, rows, row_ids, n):
        found = super().generate(rows, row_ids, n)
        for group in found:
            object.__setattr__(group, "completions", [str(int(one)) for one in group.success])
        return found


def infinite(completions, **_):
    return [float("inf") if one == "1" else -float("inf") for one in completions]


def test_infinite_scores_are_kept(tmp_path):
    settings = {"k": 2, "progress": silent, "journal": tmp_path / "probe.jsonl"}
    found = probe_policy(Scored(32, seed=5), ROWS, infinite, **settings)
    again = probe_policy(Scored(32, seed=5), ROWS, infinite, **settings)
    assert found.reading.correct.tolist() == again.reading.correct.tolist()
    assert 0 < found.reading.correct.sum() < found.reading.rollouts
    assert again.reading.rewards == (-float("inf"), float("inf"))
    assert json.dumps(found.record(), allow_nan=False)
    assert found.record()["rewards"] == [None, None]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"success_threshold": float("nan")}, "success_threshold must be a finite number"),
        ({"micro_batch": 0}, "micro_batch must be a whole number, at least 1"),
        ({"seed": -1}, "seed must be a whole number, at least 0"),
        ({"group_by": ["kind"]}, "group_by must be the name of one column"),
        ({"verifier": "math"}, "verifier must be a function f"),
    ],
)
def test_wrong_arguments_are_said_by_both_functions(wrong, said):
    for function in (probe_policy, lambda policy, rows, **more: compare(policy, policy, **more)):
        settings = {"verifier": None, "progress": silent, **wrong}
        if function is not probe_policy:
            settings["prompts"] = ROWS
        with pytest.raises(ValueError, match=said):
            function(BanditPolicy(32), ROWS, **settings)


class NeverSampled(BanditPolicy):
    def generate(self, *arguments):
        raise AssertionError("it samples first")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"tolerance": 2}, "tolerance must lie"),
        ({"ks": [8]}, "no prompt has k=8 rollouts"),
        ({"names": "ab"}, "names must be two"),
    ],
)
def test_what_the_comparison_would_refuse_is_said_before_sampling(wrong, said):
    policy = NeverSampled(32)
    with pytest.raises(ValueError, match=said):
        compare(policy, policy, prompts=ROWS, num_generations=4, progress=silent, **wrong)


class Plain(BanditPolicy):
    def parameters(self, recurse=True):
        return [self.weight]


class TooFew(BanditPolicy):
    def generate(self, rows, row_ids, n):
        return super().generate(rows, row_ids, n)[1:]


def test_a_policy_of_ones_own_that_is_not_quite_one_is_told_what_is_wrong():
    with pytest.raises(ValueError, match="must give pairs of name and parameter"):
        probe_policy(Plain(32), ROWS, k=2, progress=silent)
    with pytest.raises(ProbeError, match="the policy gave 31 groups for 32 prompts"):
        probe_policy(TooFew(32), ROWS, k=2, progress=silent)
    frozen = BanditPolicy(32)
    frozen.weight.requires_grad_(False)
    with pytest.raises(ValueError, match="The model has 1, all of them frozen"):
        probe_policy(frozen, ROWS, k=2, progress=silent)
    assert not frozen.generated
    with torch.inference_mode(), pytest.raises(ValueError, match=r"outside torch\.inference_mode"):
        probe_policy(BanditPolicy(32), ROWS, k=2, progress=silent)


def test_under_no_grad_it_finds_the_same():
    found = probe_policy(BanditPolicy(32), ROWS, k=2, progress=silent)
    with torch.no_grad():
        again = probe_policy(BanditPolicy(32), ROWS, k=2, progress=silent)
    assert found.reading.test == again.reading.test


HEAD = "def verify(completions, **_):\n    return "
VERIFIERS = {
    "as it was": f"{HEAD}[float(c == '1') for c in completions]\n",
    "mended": f"{HEAD}[float(c != '1') for c in completions]\n",
}


def test_a_verifier_that_was_mended_does_not_get_its_old_verdicts(tmp_path):
    def verifier(text):
        path = tmp_path / f"{text.replace(' ', '_')}.py"
        path.write_text(VERIFIERS[text])
        return named_verifier(f"{path}:verify")

    settings = {"k": 2, "progress": silent, "journal": tmp_path / "probe.jsonl"}
    found = probe_policy(Scored(32, seed=5), ROWS, verifier("as it was"), **settings)
    again = probe_policy(Scored(32, seed=5), ROWS, verifier("as it was"), **settings)
    assert again.reading.correct.tolist() == found.reading.correct.tolist()
    with pytest.raises(ValueError, match="another probe: verifier_code"):
        probe_policy(Scored(32, seed=5), ROWS, verifier("mended"), **settings)
