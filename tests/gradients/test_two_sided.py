"""The two-sided sketch: unbiased, within its bound, additive, the same from anywhere."""

import pytest
import torch

from passk_guard.gradients.accumulators import ExactGramian
from passk_guard.gradients.two_sided import TwoSidedGramian

SHAPES = {"layer.weight": (40, 56), "layer.bias": (40,), "long": (3000,), "cube": (4, 5, 6)}
SHAPES = {name: torch.Size(shape) for name, shape in SHAPES.items()}
OWNERS = torch.tensor([0, 0, 1, 1, 2])


def factors(seed=0):
    """Factors of five rollouts of three prompts, six tokens each."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(5, 6, 40, generator=rng), torch.randn(5, 6, 56, generator=rng)


def gradients(left, right):
    each = torch.einsum("btr,btc->brc", left, right)
    return torch.zeros(3, 40, 56).index_add_(0, OWNERS, each)


def sketched(size, seed, left, right, name="layer.weight"):
    sink = TwoSidedGramian(3, SHAPES, size, (seed,))
    sink.outer(name, sink.factor(name, 0, left), sink.factor(name, 1, right), OWNERS)
    return sink


def test_whole_gradients_from_factors():
    left, right = factors()
    sink = ExactGramian(3, SHAPES)
    name = "layer.weight"
    sink.outer(name, sink.factor(name, 0, left), sink.factor(name, 1, right), OWNERS)
    want = gradients(left, right).flatten(1)
    assert torch.allclose(sink.gramian(), (want @ want.T).double(), rtol=1e-5)


@pytest.mark.parametrize("rank", [1, 6], ids=["rank one", "full"])
@pytest.mark.parametrize("size", [8, 16])
def test_it_is_unbiased_and_within_its_bound(rank, size):
    left, right = factors()
    left, right = left[:, :rank], right[:, :rank]
    flat = gradients(left, right).flatten(1).double()
    want = flat @ flat.T
    draws = 1500
    seen = torch.stack([sketched(size, i, left, right).gramian() for i in range(draws)])
    error = (seen.mean(0) - want).abs() / (seen.var(0) / draws).sqrt()
    assert float(error.max()) < 4
    norms = torch.outer(want.diagonal(), want.diagonal())
    bound = (2 / size + 2 / size**2) * (norms + want.square())
    ratio = seen.var(0) / bound
    assert float(ratio.max()) < 1.15  # a variance from 1500 draws
    if rank == 1:  # of one token each: prompt 2 has one rollout, the worst case
        assert float(ratio[2, 2]) > 0.8


def test_signs_that_are_not_random_fail_the_same_test(monkeypatch):
    monkeypatch.setattr(
        TwoSidedGramian, "_drawn", lambda *args: torch.ones(args[3], dtype=torch.int64)
    )
    left, right = factors()
    flat = gradients(left, right).flatten(1).double()
    seen = sketched(8, 0, left, right).gramian()
    assert float(((seen - flat @ flat.T) / flat.square().sum(-1)).abs().max()) > 1


def test_a_wide_enough_size_changes_nothing():
    left, right = factors()
    flat = gradients(left, right).flatten(1).double()
    sink = sketched(64, 0, left, right)
    assert torch.allclose(sink.gramian(), flat @ flat.T, rtol=1e-5)
    assert sink.error() < 1e-6


def test_parts_of_a_batch_add_up():
    left, right = factors()
    whole, parts = sketched(8, 3, left, right), TwoSidedGramian(3, SHAPES, 8, (3,))
    name = "layer.weight"
    for which in (slice(0, 1), slice(1, 4), slice(4, 5)):
        one, other = parts.factor(name, 0, left[which]), parts.factor(name, 1, right[which])
        parts.outer(name, one, other, OWNERS[which])
    assert torch.allclose(parts.gramian(), whole.gramian(), rtol=1e-4, atol=1e-4)


def test_rows_of_an_embedding_and_a_head_tied_to_it_are_one_parameter():
    left, right = factors()
    ids = torch.randint(40, (5, 6), generator=torch.Generator().manual_seed(1))
    name = "layer.weight"
    one_hot = torch.nn.functional.one_hot(ids, 40).float()
    both = torch.cat([left, one_hot], 1), torch.cat([right, right], 1)
    want = sketched(8, 0, *both).gramian()
    sink = sketched(8, 0, left, right)
    sink.outer(name, sink.factor(name, 0, ids), sink.factor(name, 1, right), OWNERS)
    assert torch.allclose(sink.gramian(), want, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", SHAPES)
def test_a_gradient_taken_whole_or_in_shards_gives_what_its_factors_give(name, monkeypatch):
    rng = torch.Generator().manual_seed(2)
    each = torch.randn(3, *SHAPES[name], generator=rng)
    whole, shards = (TwoSidedGramian(3, SHAPES, 8, (0,)) for _ in range(2))
    for row in range(3):
        whole.add(row, name, each[row])
    starts = iter(3 * [0, each[0, 0].numel()])

    def part(gradient):
        return gradient.flatten(), next(starts)

    monkeypatch.setattr("passk_guard.gradients.two_sided.local_part", part)
    for row in range(3):
        for piece in (each[row, :1], each[row, 1:]):
            shards.add(row, name, piece)
    assert torch.allclose(shards.gramian(), whole.gramian(), rtol=1e-4, atol=1e-3)
    if name == "layer.weight":
        from_factors = TwoSidedGramian(3, SHAPES, 8, (0,))
        one = torch.eye(40).expand(3, 40, 40)
        pair = from_factors.factor(name, 0, one), from_factors.factor(name, 1, each)
        from_factors.outer(name, *pair, torch.arange(3))
        assert torch.allclose(from_factors.gramian(), whole.gramian(), rtol=1e-4, atol=1e-3)
    flat = each.flatten(1).double()
    scale = (each.flatten(1).norm(dim=1).double()[:, None] * each.flatten(1).norm(dim=1)) ** -1
    assert float(((whole.gramian() - flat @ flat.T) * scale).abs().max()) < 1.5


def test_vectors():
    rng = torch.Generator().manual_seed(0)
    for name, width in (("layer.bias", 40), ("long", 3000)):
        values = torch.randn(5, width, generator=rng)
        flat = torch.zeros(3, width).index_add_(0, OWNERS, values).double()
        seen = []
        for seed in range(300):
            sink = TwoSidedGramian(3, SHAPES, 8, (seed,))
            sink.vector(name, values, OWNERS)
            seen.append(sink.gramian())
        want, seen = flat @ flat.T, torch.stack(seen)
        if width == 40:
            assert torch.allclose(seen[0], want, rtol=1e-5)
            continue
        error = (seen.mean(0) - want).abs() / (seen.var(0) / 300).sqrt()
        assert float(error.max()) < 4


def test_one_device_s_signs_are_the_same_in_any_order_and_another_seed_s_are_not():
    left, right = factors()
    one, same, other = (sketched(8, seed, left, right).gramian() for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other, rtol=1e-2)
    mixed = TwoSidedGramian(3, SHAPES, 8, (1,))
    b = mixed.factor("layer.weight", 1, right)
    mixed.outer("layer.weight", mixed.factor("layer.weight", 0, left), b, OWNERS)
    assert torch.equal(mixed.gramian(), one)
