"""A policy is read outside any run: what it finds is right, and interrupted it loses nothing."""

import json

import numpy as np
import pytest
import torch
from tiny import BanditPolicy
from torch import nn

from passk_guard import RolloutGroup, estimate_alignment, pass_at_k
from passk_guard.checkpoints.held_out_run import weights_fingerprint
from passk_guard.checkpoints.probe_journal import _unpacked
from passk_guard.checkpoints.probe_policy import probe_policy
from passk_guard.errors import ProbeError
from passk_guard.gradients.backward import BackwardEngine
from passk_guard.gradients.engine import EngineSettings
from passk_guard.runtime.progress import silent
from passk_guard.statistics.policy_reading import Verdict

ROWS = [{"prompt": str(i), "kind": "even" if i % 2 == 0 else "odd"} for i in range(64)]


def read(policy=None, rows=ROWS, **settings):
    policy = policy or BanditPolicy(64, dim=3, seed=5)
    settings = {"k": 4, "prompts_at_once": 16, "progress": silent, **settings}
    return probe_policy(policy, rows, **settings)


def figures(probe):
    """What a probe found, without what the machine or the way there had to do with."""
    return {k: v for k, v in probe.record().items() if k not in ("seconds", "remarks", "journal")}


class Interrupted(BanditPolicy):
    """Stops in the middle, as Ctrl-C would."""

    def __init__(self, batches):
        super().__init__(64, dim=3, seed=5)
        self.batches = batches

    def generate(self, rows, row_ids, n):
        if self.batches == 0:
            raise KeyboardInterrupt
        self.batches -= 1
        return super().generate(rows, row_ids, n)


def test_the_fingerprint_reads_matrices_of_real_size_to_their_end():
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(32_000, 2_048, dtype=torch.bfloat16))
    module.parameters = module.named_parameters
    zeros = weights_fingerprint(module)
    with torch.no_grad():
        module.weight[-1, -1] = 1.0
    assert weights_fingerprint(module) != zeros


# What it finds ----------------------------------------------------------------------------------


def test_figures_are_those_of_the_slow_way():
    policy = BanditPolicy(64, dim=3, seed=5)
    found = read(policy, group_by="kind").reading
    assert found.prompts == 64
    assert (found.n == 8).all()
    for one in found.pass_at:
        assert one.value == pytest.approx(pass_at_k(found.correct, 8, one.k).mean())
        assert one.low <= one.value <= one.high
    assert [one.k for one in found.pass_at] == list(range(1, 8))
    slow = estimate_alignment(found.gramian, found.correct, found.n, 4)
    assert found.alignment.inner == pytest.approx(slow.inner)
    assert found.test.inner == pytest.approx(slow.inner)
    assert found.no_signal == ((found.correct == 0) | (found.correct == 8)).mean()


def test_the_gramian_is_that_of_the_rollouts_in_the_journal(tmp_path):
    policy = BanditPolicy(64, dim=3, seed=5)
    found = read(policy, journal=tmp_path / "probe.jsonl").reading
    lines = [json.loads(line) for line in (tmp_path / "probe.jsonl").read_text().splitlines()]
    prompts = [line for line in lines if line.get("look") == "prompt"]
    assert [line["correct"] for line in prompts] == found.correct.tolist()
    assert [line["row"] for line in prompts] == list(found.row_ids)
    groups = [_unpacked(line["rollouts"]) for line in prompts]
    kernel = BackwardEngine(policy, EngineSettings(prompts=64)).gramian(groups, (0,))
    np.testing.assert_allclose(found.gramian, kernel.numpy(), rtol=1e-5, atol=1e-7)


def test_groups_add_up_to_the_whole():
    found = read(group_by="kind").reading
    assert set(found.groups) == {"even", "odd"}
    whole = sum(g.inner * g.prompts for g in found.groups.values()) / found.prompts
    assert whole == pytest.approx(found.alignment.inner)
    one = sum(g.pass_at_1.value * g.prompts for g in found.groups.values()) / found.prompts
    assert one == pytest.approx(found.pass_at[0].value)
    for group in found.groups.values():
        assert group.low < group.inner < group.high


class Levers(nn.Module):
    """Easy and hard prompts that one parameter moves in opposite or in the same direction.

    A rollout is one token, right or wrong: ``p = σ(bias ± θ)``, so every gradient is exact.
    """

    def __init__(self, hard, opposed):
        super().__init__()
        self.theta = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.bias = torch.where(torch.arange(512) % 100 < 100 * hard, -2.2, 1.7).double()
        self.sign = torch.where((self.bias < 0) & opposed, -1.0, 1.0).double()

    def parameters(self, recurse=True):
        return self.named_parameters()

    def p(self, rows):
        return (self.bias[rows] + self.sign[rows] * self.theta).sigmoid()

    def truth(self, k):
        """``⟨∇J_k, ∇J_1⟩``."""
        p = self.p(torch.arange(512)).detach()
        gradients = p * (1 - p) * self.sign
        return float((k * (1 - p) ** (k - 1) * gradients).mean() * gradients.mean())

    def generate(self, rows, row_ids, n):
        groups = []
        for i in row_ids:
            right = (torch.rand(n) < self.p(i)).long()
            ids = torch.stack([torch.full((n,), i), right], 1)
            sampled = torch.tensor([0, 1]).expand(n, 2)
            groups.append(RolloutGroup(i, ids, torch.ones_like(ids), sampled, right.float()))
        return groups

    def log_probs(self, input_ids, attention_mask, completion_mask):
        p = self.p(input_ids[:, 0])
        score = torch.where(input_ids[:, 1] == 1, p, 1 - p).log()
        return torch.stack([torch.zeros_like(score), score], 1) * completion_mask


@pytest.mark.parametrize(
    ("hard", "opposed", "verdict"),
    [
        (0.3, True, Verdict.LOWERS),  # most prompts are easy, pass@8 goes with the others
        (0.3, False, Verdict.RAISES),
        (0.9, True, Verdict.RAISES),  # the hard ones are the most in pass@1 as well
    ],
)
def test_the_sign_is_that_of_the_exact_gradients(hard, opposed, verdict):
    policy = Levers(hard, opposed)
    rows = [{"prompt": str(i)} for i in range(512)]
    found = read(policy, rows, k=8, num_prompts=512, prompts_at_once=256).reading
    assert (policy.truth(8) < 0) == (verdict is Verdict.LOWERS)
    assert found.verdict is verdict
    assert found.alignment.low < policy.truth(8) < found.alignment.high


class Fixed(nn.Module):
    """Each prompt is solved by a given number of rollouts, whatever the weights."""

    def __init__(self, right):
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(()))
        self.right, self.differentiated = right, 0

    def parameters(self, recurse=True):
        return self.named_parameters()

    def generate(self, rows, row_ids, n):
        ids = torch.ones(n, 2, dtype=torch.long)
        success = lambda i: (torch.arange(n) < self.right(i, n)).float()  # noqa: E731
        return [RolloutGroup(i, ids, ids, ids, success(i)) for i in row_ids]

    def log_probs(self, input_ids, attention_mask, completion_mask):
        self.differentiated += 1
        return self.logit.expand(input_ids.shape) * completion_mask


@pytest.mark.parametrize(
    ("right", "said"),
    [
        (lambda i, n: 0, "nothing was right in 512 rollouts"),
        (lambda i, n: n, "all of 512 rollouts were right"),
        (lambda i, n: n * (i % 2), "each prompt was solved always or never"),
        (lambda i, n: n // 2 if i == 0 else 0, "only 1 of 64 prompts have both"),
    ],
)
def test_without_a_signal_it_says_so_and_takes_no_gradients(right, said):
    policy = Fixed(right)
    found = read(policy)
    assert found.reading.verdict is Verdict.NO_SIGNAL
    assert said in found.sentence
    assert policy.differentiated == 0
    assert found.reading.curve == []
    assert found.reading.test is None
    assert json.dumps(found.record())


def test_a_pass_at_k_gradient_that_is_nil_is_called_so():
    found = read(Fixed(lambda i, n: n - 1))
    assert found.reading.verdict is Verdict.NIL
    assert "pass@4 is 1.000" in found.sentence
    assert "0 of 64 prompts" in found.sentence
    hard = read(Fixed(lambda i, n: 1 + i % 2))
    assert hard.reading.verdict is not Verdict.NIL


# Nothing is lost --------------------------------------------------------------------------------


def test_interrupted_it_goes_on_as_if_nothing_had_been(tmp_path):
    whole = read(journal=tmp_path / "whole.jsonl")
    with pytest.raises(KeyboardInterrupt):
        read(Interrupted(2), journal=tmp_path / "cut.jsonl")
    policy = BanditPolicy(64, dim=3, seed=5)
    resumed = read(policy, journal=tmp_path / "cut.jsonl")
    assert policy.generated == 32 * 8  # the other half was there
    assert "holds 32 prompts of this probe already" in resumed.remarks[0]
    assert figures(resumed) == figures(whole)
    other = read(seed=1, journal=tmp_path / "other.jsonl")  # the comparison can fail
    assert figures(other)["pass_at"] != figures(whole)["pass_at"]


def test_a_journal_cut_anywhere_costs_one_batch_at_most(tmp_path):
    journal = tmp_path / "probe.jsonl"
    whole = read(journal=journal)
    data = journal.read_bytes()
    head = data.index(b"\n") + 1
    for cut in np.linspace(head, len(data) - 1, 9).astype(int):
        journal.write_bytes(data[:cut])
        kept = data[:cut].count(b'"look": "batch"') - (
            data[:cut].rfind(b'"batch"') > data[:cut].rfind(b"\n")
        )
        policy = BanditPolicy(64, dim=3, seed=5)
        assert figures(read(policy, journal=journal)) == figures(whole)
        assert policy.generated == (64 - 16 * kept) * 8
        assert journal.read_bytes().count(b'"look": "prompt"') == 64


def test_more_prompts_continue_a_probe_and_spend_what_is_left(tmp_path):
    first = read(num_prompts=32, journal=tmp_path / "probe.jsonl")
    again = read(num_prompts=32, journal=tmp_path / "probe.jsonl")
    assert again.reading.test == first.reading.test  # another reading of the same is no new look
    more = read(num_prompts=64, journal=tmp_path / "probe.jsonl")
    assert more.reading.row_ids[:32] == first.reading.row_ids
    assert (more.reading.correct[:32] == first.reading.correct).all()
    assert first.reading.test.chance == pytest.approx(0.04)
    assert more.reading.test.chance == pytest.approx(0.008)
    early = read(num_prompts=64, journal=tmp_path / "probe.jsonl", early_stop=True)
    assert early.reading.test.chance == pytest.approx(0.0016)  # other looks: another round


def test_early_looks_are_at_128_prompts_and_more():
    rows = [{"prompt": str(i)} for i in range(256)]
    found = read(BanditPolicy(256, dim=3, seed=5), rows, num_prompts=256, early_stop=True)
    assert found.looks in ((128,), (128, 256))
    assert (found.looks == (128,)) == found.reading.test.sure
    hard = Fixed(lambda i, n: 1 + i % 2)
    stopped = read(hard, rows, num_prompts=256, early_stop=True)  # one parameter: all agree
    assert stopped.looks == (128,)
    assert stopped.reading.verdict is Verdict.RAISES


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_generations": 10}, "n 8, now 10"),
        ({"seed": 3}, "seed 0, now 3"),
        ({"rows": ROWS[:40]}, "prompts '"),
        ({"policy": BanditPolicy(64, dim=3, seed=6)}, "weights '"),
        ({"success_threshold": 0.9}, "success_threshold 0.5, now 0.9"),
    ],
)
def test_another_probes_journal_is_refused(tmp_path, change, said):
    journal = tmp_path / "probe.jsonl"
    read(num_prompts=16, journal=journal)
    before = journal.read_bytes()
    with pytest.raises(ValueError, match="is the journal of another probe") as error:
        read(num_prompts=16, journal=journal, **change)
    assert said in str(error.value)
    assert journal.read_bytes() == before


def test_a_damaged_journal_names_the_line(tmp_path):
    journal = tmp_path / "probe.jsonl"
    read(num_prompts=16, journal=journal)
    lines = journal.read_text().splitlines(keepends=True)
    for broken in (
        "not json\n",
        lines[2].replace('"rollouts": "', '"rollouts": "x'),
        '{"look": "prompt"}\n',
    ):
        journal.write_text("".join([*lines[:2], broken, *lines[3:]]))
        with pytest.raises(ValueError, match="line 3: "):
            read(num_prompts=16, journal=journal)
    journal.write_text('{"step": 0, "look": "start"}\n')
    with pytest.raises(ValueError, match=r"is no journal of passk-guard probe"):
        read(num_prompts=16, journal=journal)


# It does no harm --------------------------------------------------------------------------------


def test_the_policy_and_random_numbers_are_left_as_they_were():
    policy = BanditPolicy(64, dim=3, seed=5)
    policy.weight.grad = torch.ones_like(policy.weight)
    before, state = policy.weight.detach().clone(), torch.get_rng_state()
    read(policy)
    assert torch.equal(policy.weight, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(policy.weight.grad, torch.ones_like(policy.weight))


def test_a_policy_that_is_a_module_samples_in_eval_mode_and_trains_on():
    class Modes(Fixed):
        def generate(self, rows, row_ids, n):
            modes.append(self.training)
            return super().generate(rows, row_ids, n)

    modes, policy = [], Modes(lambda i, n: 1 + i % 2)
    read(policy)
    assert set(modes) == {False}
    assert policy.training


class Told(Fixed):
    """Leaves the verdict to a verifier."""

    def generate(self, rows, row_ids, n):
        from dataclasses import replace

        nan = torch.full((n,), torch.nan)
        texts = tuple(str(j) for j in range(n))
        groups = super().generate(rows, row_ids, n)
        return [replace(group, success=nan, completions=texts) for group in groups]


def test_a_verifier_that_raises_ends_it_and_the_journal_stays(tmp_path):
    calls = []

    def verify(prompts, completions, **columns):
        calls.append(len(completions))
        if len(calls) == 2:
            raise RuntimeError("the sandbox is down")
        return [float(int(c) % 3 == 0) for c in completions]

    journal = tmp_path / "probe.jsonl"
    with pytest.raises(RuntimeError, match="the sandbox is down"):
        read(Told(lambda i, n: 0), verifier=verify, journal=journal)
    found = read(Told(lambda i, n: 0), verifier=verify, journal=journal)
    assert len(calls) == 1 + 1 + 2 + 3  # in halves, too: is it a row?
    assert found.reading.prompts == 64


def test_what_cannot_be_scored_shrinks_n_and_short_prompts_are_left_out():
    def verify(prompts, completions, **columns):
        return [
            None if (int(c) == 0 or (p == "3" and int(c) > 2)) else float(int(c) % 2)
            for p, c in zip(prompts, completions, strict=True)
        ]

    found = read(Told(lambda i, n: 0), verifier=verify).reading
    assert found.prompts == 63
    assert 3 not in found.row_ids
    assert (found.n == 7).all()
    assert len(found.pass_at) == 6
    with pytest.raises(ProbeError, match="the first 128 rollouts all have no verdict"):
        read(Told(lambda i, n: 0), verifier=lambda completions, **_: [None] * len(completions))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"k": 0}, "k must be a whole number, at least 1, got 0"),
        ({"num_generations": 4}, "num_generations=4 must be above k=4"),
        ({"num_prompts": 3}, "num_prompts must be a whole number, at least 4"),
        ({"chance": 0.7}, "chance must lie between 0 and 0.5"),
        ({"group_by": "nothing"}, "group_by='nothing' names no column"),
        ({"rows": ROWS[:3]}, "prompts must be at least 4, got 3"),
        ({"rows": "held_out.jsonl"}, "cannot be read"),
        ({"policy": nn.Linear(2, 2)}, "got Linear without generate, log_probs"),
        ({"verifier": lambda answer, **_: []}, "needs 'answer'"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_sampled(wrong, said, tmp_path):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - what it says is checked below
        read(journal=tmp_path / "probe.jsonl", **wrong)
    assert said in str(error.value)


def test_duplicates_are_said():
    found = read(rows=ROWS[:1] * 33 + ROWS[:31])
    assert "Of 64 prompts only 31 are different" in found.remarks[0]
    assert len(set(found.prompt_ids)) == 64
