"""Two checkpoints compared, from whatever a user has: files, numbers, probes or policies."""

import gc
import json
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import BanditPolicy

from passk_guard import RolloutGroup, compare, probe_policy
from passk_guard.checkpoints.sampled_counts import LazyPolicy
from passk_guard.counts import PromptCount, gather, write_counts
from passk_guard.runtime.progress import silent

ROWS = [{"prompt": str(i), "kind": "even" if i % 2 == 0 else "odd"} for i in range(200)]
N = 16


def bandit(step=0.0, contexts=200):
    """One policy, and the same one moved by a known step."""
    policy = BanditPolicy(contexts, dim=3, seed=5)
    move = torch.randn(policy.weight.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        policy.weight += step * move
    return policy


def exact(policy):
    with torch.no_grad():
        return float(torch.stack([policy.success(x) for x in range(200)]).mean())


def counted(seed, shift=0.0, m=300, n=N):
    rng = np.random.default_rng(seed)
    p = np.clip(np.linspace(0.05, 0.95, m) + shift, 0, 1)
    return rng.binomial(n, p)


# From numbers -----------------------------------------------------------------------------------


def test_every_form_of_the_same_counts_gives_the_same(tmp_path):
    before, after = counted(0), counted(1, -0.1)
    made = [
        gather(name, (PromptCount(str(i), int(c), N) for i, c in enumerate(correct)))
        for name, correct in (("a", before), ("b", after))
    ]
    paths = [tmp_path / f"{counts.name}.jsonl" for counts in made]
    for counts, path in zip(made, paths, strict=True):
        write_counts(counts, path)
    mappings = [{str(i): (int(c), N) for i, c in enumerate(x)} for x in (before, after)]
    forms = [made, paths, list(map(str, paths)), mappings, [(before, N), (after, N)]]
    found = [compare(*form, progress=silent) for form in forms]
    assert found[0].decision == 1
    assert {one.changes for one in found} == {found[0].changes}
    assert {tuple(p.id for p in one.lost) for one in found} == {tuple(p.id for p in found[0].lost)}


def test_a_probe_is_a_side(tmp_path):
    """Its journal is the same side."""
    probes = [
        probe_policy(
            bandit(step),
            ROWS,
            k=4,
            num_generations=N,
            num_prompts=200,
            group_by="kind",
            journal=tmp_path / f"{name}.jsonl",
            progress=silent,
        )
        for name, step in (("a", 0.0), ("b", 0.5))
    ]
    found = compare(*probes)
    files = compare(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert found.changes == files.changes
    assert [g.name for g in found.groups] == [g.name for g in files.groups] == ["even", "odd"]
    assert not [said for said in files.remarks if "weights" in said or "seed" in said]
    truth = exact(bandit(0.5)) - exact(bandit())
    assert found.pass_at_1.low < truth < found.pass_at_1.high


@pytest.mark.parametrize(
    ("side", "said"),
    [
        (3, "a must be a path, Counts, a PolicyProbe"),
        ({"x": 3}, "prompt 'x' has 3: give (correct, n)"),
        ({"x": (0.5, 1)}, "prompt 'x' has (0.5, 1)"),
        ({"x": (3, 2)}, "correct=3 of n=2"),
        ({}, "a is empty"),
        ("nowhere.jsonl", "nowhere.jsonl does not exist"),
        (BanditPolicy(8), "prompts is missing"),
    ],
)
def test_bad_sides_are_named(side, said):
    with pytest.raises((ValueError, OSError)) as error:
        compare(side, {"x": (1, 2)}, progress=silent)
    assert said in str(error.value)


# From policies ----------------------------------------------------------------------------------


def both(a, b, **settings):
    settings = {"prompts": ROWS, "num_generations": N, "progress": silent, **settings}
    return compare(a, b, **settings)


def test_close_policies_are_compared_on_common_rollouts():
    a, b = bandit(), bandit(0.02)
    truth = exact(b) - exact(a)
    found = both(a, b, group_by="kind")
    common = found.common
    assert common.allowed
    assert common.low < truth < common.high
    assert common.high - common.low < 0.5 * (found.pass_at_1.high - found.pass_at_1.low)
    assert found.decision == 0
    assert "that both score" in found.sentence
    assert len(found.groups) == 2
    assert json.dumps(found.record(), allow_nan=False)
    assert (found.a, found.b) == ("a", "b")
    assert "rollouts of before that" in both(a, b, names=("before", "after")).sentence
    fell = both(b, bandit(-3.0))  # far: counts decide
    assert not fell.common.allowed
    assert any("On common rollouts nothing can be said" in said for said in fell.remarks)


def test_common_rollouts_decide_on_either_side_of_the_tolerance():
    worse, better = bandit(), bandit()
    _, gradients = better.exact_gradients()
    with torch.no_grad():
        better.weight += 30 * gradients.mean(0).view_as(better.weight)
    size = exact(better) - exact(worse)
    assert size > 0.007
    fell = both(better, worse, tolerance=size / 10, num_generations=256)
    assert fell.common.allowed
    assert fell.decision == 1
    assert "pass@1 fell by more than" in fell.sentence
    assert both(worse, better, tolerance=size / 10, num_generations=256).decision == 0
    assert both(better, worse, tolerance=size).decision == 2


def test_common_rollouts_do_not_decide_where_counts_know_more():
    found = both(bandit(), bandit(0.7), num_generations=64)
    assert found.common.allowed
    width = found.pass_at_1.high - found.pass_at_1.low
    assert found.common.high - found.common.low >= width
    assert any("a wider interval than counts" in said for said in found.remarks)
    assert "that both score" not in found.sentence


def test_a_fall_on_prompts_that_the_first_one_always_solves_is_not_called_none():
    """All of the first one's rollouts are right there: scored again, they show no change at all."""

    class Answers:
        def __init__(self, p):
            self.p = p

        def parameters(self):
            return ()

        def generate(self, rows, row_ids, n):
            right = torch.rand(len(row_ids), n, dtype=torch.float64) < self.p[row_ids, None]
            ids = torch.ones(n, 1, dtype=torch.long)
            each = zip(row_ids, right.float(), strict=True)
            return [RolloutGroup(i, ids * i, ids, ids, own) for i, own in each]

        def log_probs(self, input_ids, attention_mask, completion_mask):
            return self.p[input_ids].log()  # of right ones; without others nothing else is asked

    p = torch.ones(200, dtype=torch.float64)
    p[:40] = 0.5
    q = p.clone()
    q[100:] = 0.1
    found = both(Answers(p), Answers(q))
    assert found.decision == 1
    assert not found.common.allowed
    assert -0.5 < found.pass_at_1.change < -0.4


def test_policies_with_other_vocabularies_are_compared_by_counts():
    a, b = bandit(), bandit(0.02)

    class Words:
        def __init__(self, *words):
            self.words = words

        def get_vocab(self):
            return {word: i for i, word in enumerate(self.words)}

    a.tokenizer, b.tokenizer = Words("x", "y"), Words("x", "z")
    found = both(a, b)
    assert found.common is None
    assert any("neither can score the other one's rollouts" in said for said in found.remarks)
    b.tokenizer = Words("x", "y")
    assert both(a, b).common is not None


class Templated(BanditPolicy):
    """Puts a token of its own before each context, as a chat template does."""

    def __init__(self, first, longest=4):
        super().__init__(200, dim=3, seed=5)
        self.first, self.settings = first, {"max_completion_length": longest}

    def generate(self, rows, row_ids, n):
        return [
            replace(
                group,
                input_ids=with_column(group.input_ids, self.first),
                attention_mask=with_column(group.attention_mask, 1),
                completion_mask=with_column(group.completion_mask, 0),
                sampling_log_probs=with_column(group.sampling_log_probs, 0),
            )
            for group in super().generate(rows, row_ids, n)
        ]

    def log_probs(self, input_ids, attention_mask, completion_mask):
        own = super().log_probs(input_ids[:, 1:], attention_mask[:, 1:], completion_mask[:, 1:])
        return with_column(own, 0)


def with_column(values, first):
    return torch.cat([torch.full_like(values[:, :1], first), values], 1)


@pytest.mark.parametrize(
    ("other", "common"), [({}, True), ({"first": 2}, False), ({"longest": 3}, False)]
)
def test_policies_that_read_the_same_prompt_otherwise_are_compared_by_counts(other, common):
    """Under another chat template a rollout says nothing of what the second one would say."""
    found = both(Templated(1), Templated(**{"first": 1, **other}))
    assert (found.common is not None) is common


def test_one_is_loaded_after_the_other_and_journals_are_gone_on_from(tmp_path):
    loaded = []

    def lazy(name, step):
        def load():
            loaded.append(name)
            return bandit(step)

        return LazyPolicy(name, load, tmp_path / f"{name}.jsonl")

    found = both(lazy("a", 0.0), lazy("b", 0.02))
    assert loaded == ["a", "b"]
    assert (found.a, found.b) == ("a", "b")
    policy = bandit()
    again = both(LazyPolicy("a", lambda: policy, tmp_path / "a.jsonl"), lazy("b", 0.02))
    assert policy.generated == 0
    assert again.changes == found.changes
    assert again.common == found.common


def test_one_side_may_be_a_file(tmp_path):
    probe_policy(
        bandit(),
        ROWS,
        k=4,
        num_generations=N,
        num_prompts=200,
        journal=tmp_path / "a.jsonl",
        progress=silent,
    )
    found = both(tmp_path / "a.jsonl", bandit(0.5))
    assert found.prompts == 200
    assert found.common is None


def test_texts_are_quoted_only_when_asked_for():
    before = gather("a", (PromptCount(str(i), 16, 16, text=f"text {i}") for i in range(60)))
    after = replace(before, name="b", correct=np.where(np.arange(60) < 20, 0, 16))
    assert compare(before, after).lost[0].text is None
    assert compare(before, after, log_prompts=True).lost[0].text.startswith("text ")


# It does no harm --------------------------------------------------------------------------------

FEW = {"prompts": ROWS[:32], "num_generations": 4}


def test_the_first_one_is_let_go_before_the_second_is_loaded():
    """Two models need not fit into memory, nor wait for the garbage collector."""
    alive = []

    def load():
        gone = [one() is None for one in alive]
        policy = bandit(0.02 * len(alive), 32)
        alive.append(weakref.ref(policy))
        assert all(gone)
        return policy

    gc.disable()
    try:
        both(LazyPolicy("a", load), LazyPolicy("b", load), **FEW)
    finally:
        gc.enable()
    assert len(alive) == 2
    assert [one() is None for one in alive] == [True, True]


def test_both_policies_and_random_numbers_are_left_as_they_were():
    a, b = bandit(0, 32), bandit(0.02, 32)
    for policy, training in ((a, True), (b, False)):
        policy.drop = torch.nn.Dropout()
        policy.drop.train(training)
        policy.weight.grad = torch.full_like(policy.weight, 3.0)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    both(a, b, **FEW)
    assert torch.equal(torch.rand(2), expected)
    assert (a.drop.training, b.drop.training) == (True, False)
    assert all((policy.weight.grad == 3.0).all() for policy in (a, b))
