"""The sketch against exact inner products: unbiased, small error whatever the structure, linear."""

import itertools

import pytest
import torch
from peak_memory import peak_memory
from tiny import CausalLMPolicy, random_groups
from torch_lm import TorchLM

from passk_guard.gradients.accumulators import ExactGramian, exact_bytes
from passk_guard.gradients.backward import add_gradient, prompt_gramian
from passk_guard.gradients.parameters import select_parameters
from passk_guard.gradients.sketch import DEFAULT_SIZE, SketchedGramian
from passk_guard.rollouts.batching import PassSize

SEEDS = 150


def sketched(gradients, seed, size=DEFAULT_SIZE):
    """Gramian of ``(m, rows, columns)`` gradients of one parameter."""
    gramian = SketchedGramian(len(gradients), size, (seed,))
    for row, gradient in enumerate(gradients):
        gramian.add(row, "weight", gradient)
    return gramian.gramian()


def folded(gradients, seed, size=DEFAULT_SIZE, *, signs):
    """What the sketch would be with neither shifts nor, if so wished, signs."""
    flat = gradients.flatten(1)
    if signs:
        rng = torch.Generator().manual_seed(seed)
        flat = flat * (2.0 * torch.randint(2, flat.shape[1:], generator=rng) - 1)
    sums = flat.view(len(flat), -1, size).sum(1).double()
    return sums @ sums.T


def cosine(gramian):
    return float(gramian[0, 1] / (gramian[0, 0] * gramian[1, 1]).sqrt())


def pair(kind, shape=(512, 256), correlation=0.0):
    """Two gradients of a matrix; ``(2, *shape)``."""
    rng = torch.Generator().manual_seed(3)
    rows, columns = shape
    if kind == "dense":
        x = torch.randn(2, *shape, generator=rng)
    elif kind == "low rank":
        u, v = torch.randn(2, rows, 2, generator=rng), torch.randn(2, 2, columns, generator=rng)
        x = u @ v
    elif kind == "few columns":
        x = torch.zeros(2, *shape)
        x[:, :, 7:9] = torch.randn(2, rows, 2, generator=rng)
    elif kind == "few embedding rows":
        x = torch.zeros(2, *shape)
        x[:, ::100] = torch.randn(2, len(range(0, rows, 100)), columns, generator=rng)
    else:  # single entries
        x = torch.randn(2, *shape, generator=rng) * (torch.rand(*shape, generator=rng) < 1e-3)
    x[1] = correlation * x[0] + (1 - correlation**2) ** 0.5 * x[1]
    return x


KINDS = ["dense", "low rank", "few columns", "few embedding rows", "single entries"]


def bias_in_standard_errors(gramian_of, x):
    exact = float((x[0].double() * x[1].double()).sum())
    found = torch.tensor([float(gramian_of(x, seed)[0, 1]) for seed in range(SEEDS)])
    return abs(float(found.mean() - exact)) / float(found.std() / SEEDS**0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_inner_products_are_unbiased(kind):
    x = pair(kind, (256, 64), correlation=0.5)
    assert bias_in_standard_errors(lambda x, seed: sketched(x, seed, 64), x) < 3


def test_without_signs_they_are_not():
    def unsigned(x, seed):
        rng = torch.Generator().manual_seed(seed)
        return folded(x.flatten(1)[:, torch.randperm(x[0].numel(), generator=rng)], 0, 64, signs=0)

    x = pair("dense", (256, 64)).abs()
    assert bias_in_standard_errors(lambda x, seed: sketched(x, seed, 64), x) < 3
    assert bias_in_standard_errors(unsigned, x) > 10


@pytest.mark.parametrize("correlation", [0.0, 0.7])
@pytest.mark.parametrize("kind", KINDS)
def test_the_standard_error_of_a_cosine_is_at_most_one_percent(kind, correlation):
    x = pair(kind, correlation=correlation)
    exact = cosine(torch.einsum("iab,jab->ij", x, x))
    errors = torch.tensor([cosine(sketched(x, seed)) - exact for seed in range(SEEDS)])
    assert errors.square().mean().sqrt() < 0.01
    assert errors.abs().max() < 0.1  # few entries: errors are rare, then several per cent


def test_without_shifts_few_columns_pile_up():
    x = pair("few columns")
    exact = cosine(torch.einsum("iab,jab->ij", x, x))
    errors = [cosine(folded(x, seed, signs=True)) - exact for seed in range(SEEDS)]
    assert torch.tensor(errors).square().mean().sqrt() > 0.05


def test_micro_batches_and_slices_add_up_exactly():
    """Whole numbers, so that float32 sums are exact in any order."""
    rng = torch.Generator().manual_seed(0)
    whole = torch.randint(-8, 9, (700, 311), generator=rng).float()
    other = torch.randint(-8, 9, (700, 311), generator=rng).float()
    bias = torch.randint(-8, 9, (311,), generator=rng).float()

    def sketches(*pieces):
        sketch = SketchedGramian(1)
        for piece in pieces:
            sketch.add(0, *piece)
        return sketch.sketches()

    want = sketches(("w", whole + other), ("b", bias))
    assert torch.equal(sketches(("w", whole), ("b", bias), ("w", other)), want)
    flat = (whole + other).flatten()
    cuts = [0, 1, 5000, 16384, 65536, 65537, 150_000, flat.numel()]
    slices = [("w", flat[a:b], a) for a, b in itertools.pairwise(cuts)]
    assert torch.equal(sketches(*slices, ("b", bias)), want)
    # Two processes, each with its share of the parameters.
    assert torch.equal(sketches(*slices[::2]) + sketches(*slices[1::2], ("b", bias)), want)
    assert not torch.equal(sketches(("w", flat[5:], 0), ("b", bias)), want)


def test_a_tiny_model_within_the_error_that_is_claimed(tiny_lm):
    model = tiny_lm(tied=True).eval()
    groups = random_groups(12, 5)
    parameters = select_parameters(model.named_parameters())
    policy = CausalLMPolicy(model)
    needed = exact_bytes(parameters, len(groups))
    exact = prompt_gramian(policy, groups, parameters, memory_limit=needed)
    norms = exact.diagonal().sqrt()
    pairs = torch.outer(norms, norms).fill_diagonal_(0) > 0
    errors = []
    for seed in range(10):
        found = prompt_gramian(
            policy,
            groups,
            parameters,
            size=PassSize(2),
            memory_limit=needed - 1,
            seed=(seed,),
        )
        errors.append(((found - exact) / torch.outer(norms, norms))[pairs])
    error = torch.stack(errors).square().mean().sqrt()
    assert 0 < error < 0.012
    assert torch.equal(exact == 0, found == 0)  # prompts without signal


def test_bf16_gradients_are_summed_in_float32():
    rng = torch.Generator().manual_seed(0)
    gradients = torch.randn(2, 3, 70_000, generator=rng).bfloat16()
    for sketch in (SketchedGramian(2), ExactGramian(2)):
        for row in range(2):
            for part in gradients[row]:
                sketch.add(row, "w", part)
        total = gradients.double().sum(1)
        want = total @ total.T
        error = (sketch.gramian() - want).abs().max() / want.abs().max()
        assert error < 0.02


class Nothing:
    """What a gradient costs that nobody keeps."""

    def add(self, row, name, gradient):
        pass


@pytest.mark.long
def test_memory_does_not_grow_with_prompts_times_parameters():
    model = TorchLM(width=512, inner=1024).eval()  # 4.3 M parameters
    policy, groups = CausalLMPolicy(model), random_groups(16, 4, seed=1)
    signal = [group for group in groups if group.has_signal]
    parameters = select_parameters(policy.parameters())

    def plain():
        for row, group in enumerate(signal):
            add_gradient(Nothing(), row, policy, [group], parameters)

    def extra(memory_limit):
        def work():
            prompt_gramian(policy, signal, parameters, memory_limit=memory_limit)

        return peak_memory(work) - alone

    plain()  # caches of the model are made
    alone = peak_memory(plain)
    needed = exact_bytes(parameters, len(signal))
    assert extra(needed) > 0.95 * needed
    sketches = 4 * len(signal) * DEFAULT_SIZE
    assert sketches <= extra(0) < 2 * sketches + 3 * 2**20  # chunks, and the float64 copy
    assert extra(0) < 0.05 * needed


def test_bad_sizes():
    for size in (0, 12, 2**20):
        with pytest.raises(ValueError, match="power of two from 8 to"):
            SketchedGramian(2, size)
