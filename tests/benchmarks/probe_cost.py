"""What do per-prompt gradients cost beside one plain forward and backward? One command, tables.

    python tests/benchmarks/probe_cost.py        # about ten minutes on one core

All on the same rollouts, prompt by prompt, on a Llama of 20 M parameters. Times are ratios to the
plain forward and backward of the same run, the least of several, alternating; on the CPU they are
processor time on one thread, so that a busy machine does little harm. Memory is what the allocator
saw: a training step's peak is parameters, Adam's moments, and the most that forward, backward and
step hold beside them. Rollouts have no padding, because not every contender could take it. TorchJD
takes part where it is installed: ``pip install torchjd``.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))
warnings.simplefilter("ignore")

import torch
from peak_memory import peak_memory
from tiny import CausalLMPolicy
from torch.func import functional_call, grad, vmap
from transformers import LlamaConfig, LlamaForCausalLM

from passk_guard.gradients import add_gradient, prompt_gramian, select_parameters
from passk_guard.rollouts import RolloutGroup

Groups = list[RolloutGroup]


def make_model(hidden: int, layers: int, vocabulary: int) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=8 * hidden // 3,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64 or 1,
        num_key_value_heads=hidden // 64 or 1,
        max_position_embeddings=2048,
    )
    return LlamaForCausalLM(config).eval()


def make_groups(m: int, n: int, length: int, vocabulary: int, device: str) -> Groups:
    """Half of each prompt's rollouts are right; a quarter of the tokens are the prompt's."""
    rng = torch.Generator().manual_seed(1)
    groups = []
    for row in range(m):
        ids = torch.randint(vocabulary, (n, length), generator=rng).to(device)
        ids[:, : length // 4] = ids[0, : length // 4]
        ones = torch.ones_like(ids)
        sampled = ones.clone()
        sampled[:, : length // 4] = 0
        success = (torch.arange(n) < n // 2).float()
        groups.append(RolloutGroup(row, ids, ones, sampled, success))
    return groups


def prompt_loss(policy: Any, group: RolloutGroup) -> torch.Tensor:
    scores = policy.log_probs(*group.tokens).sum(-1)
    return scores @ (group.centred_success() / group.n).to(scores)


def rollout_scores(model: Any, ids: torch.Tensor, **how: Any) -> torch.Tensor:
    """``(b,)`` log-probabilities of completions, written so that torch.func can take it."""
    start = ids.shape[1] // 4
    logits = model(input_ids=ids, use_cache=False, **how).logits[:, start - 1 : -1]
    return logits.log_softmax(-1).gather(-1, ids[:, start:, None])[..., 0].sum(-1)


class Nothing:
    """An accumulator that keeps no gradient."""

    def add(self, row: int, name: str, gradient: torch.Tensor) -> None:
        pass


class Contenders:
    """Ways to a Gramian of per-prompt gradients, and what they are measured against."""

    def __init__(self, model: Any) -> None:
        self.model, self.policy = model, CausalLMPolicy(model)
        self.parameters = select_parameters(model.named_parameters())

    def plain(self, groups: Groups) -> None:
        """Forward and backward as training does it, gradients summed."""
        for group in groups:
            prompt_loss(self.policy, group).backward()
        self.model.zero_grad()

    def nothing_kept(self, groups: Groups) -> None:
        for row, group in enumerate(groups):
            add_gradient(Nothing(), row, self.policy, group, self.parameters)

    def exact(self, groups: Groups) -> torch.Tensor:
        return prompt_gramian(self.policy, groups, self.parameters, memory_limit=float("inf"))

    def sketch(self, groups: Groups) -> torch.Tensor:
        return prompt_gramian(self.policy, groups, self.parameters, memory_limit=0)

    def loop(self, groups: Groups) -> torch.Tensor:
        tensors = [p for _, p in self.parameters]
        rows = [
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, tensors)])
            for loss in (prompt_loss(self.policy, group) for group in groups)
        ]
        gradients = torch.stack(rows)
        return gradients @ gradients.T

    def vmap(self, groups: Groups) -> torch.Tensor:
        # The fused attention kernels have no batching rule.
        model = with_eager_attention(self.model)
        weights = {name: p.detach() for name, p in self.parameters}

        def loss(weights, ids, coefficients):
            def call(**inputs):
                return functional_call(model, weights, kwargs=inputs)

            return rollout_scores(call, ids) @ coefficients

        found = vmap(grad(loss), in_dims=(None, 0, 0))(weights, *stacked(groups))
        return sum(g.flatten(1) @ g.flatten(1).T for g in found.values())

    def autogram(self, groups: Groups) -> torch.Tensor:
        """TorchJD over prompts: one objective each."""
        from torchjd.autogram import Engine

        model = with_eager_attention(self.model)
        engine = Engine(model, batch_dim=None)
        ids, coefficients = stacked(groups)
        scores = rollout_scores(model, ids.flatten(0, 1)).view(coefficients.shape)
        return engine.compute_gramian((scores * coefficients).sum(-1))

    def autogram_batched(self, groups: Groups) -> torch.Tensor:
        """TorchJD over rollouts, which it may batch; then summed over each prompt's."""
        from torchjd.autogram import Engine

        model = with_eager_attention(self.model)
        engine = Engine(model, batch_dim=0)
        ids, coefficients = stacked(groups)
        gramian = engine.compute_gramian(rollout_scores(model, ids.flatten(0, 1)))
        weights = torch.block_diag(*coefficients)
        return weights @ gramian @ weights.T


def with_eager_attention(model: Any) -> Any:
    """A shell of the model with the same parameters."""
    memo = {id(p): p for p in model.parameters()}
    other = copy.deepcopy(model, memo)
    other.set_attn_implementation("eager")
    return other


def stacked(groups: Groups) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.stack([group.input_ids for group in groups])
    coefficients = torch.stack([group.centred_success() / group.n for group in groups])
    return ids, coefficients.to(ids.device)


NAMES = {
    "plain": "plain forward and backward",
    "exact": "**guard, exact**",
    "sketch": "**guard, sketch**",
    "loop": "loop that stores gradients",
    "vmap": "torch.func vmap(grad)",
    "autogram": "TorchJD autogram, prompts",
    "autogram_batched": "TorchJD autogram, rollouts batched",
}


def least_seconds(works: dict[str, Callable[[], Any]], repeats: int, device: str) -> dict[str, Any]:
    """Least time of each, alternating; the error's name for what cannot run."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    found: dict[str, Any] = {}
    for _ in range(repeats):
        for name, work in works.items():
            if isinstance(found.get(name), str):
                continue
            try:
                start = clock()
                work()
                if device != "cpu":
                    torch.cuda.synchronize()
                seconds = clock() - start
            except Exception as error:
                found[name] = type(error).__name__
                print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
            else:
                found[name] = min(seconds, found.get(name, seconds))
    return found


def training_peak(contenders: Contenders, groups: Groups, device: str) -> tuple[int, int]:
    """Bytes that a training step holds at most: in all, and beside parameters and moments."""
    optimizer = torch.optim.AdamW(contenders.model.parameters(), lr=0.0)
    prompt_loss(contenders.policy, groups[0]).backward()
    optimizer.step()
    optimizer.zero_grad()

    def step() -> None:
        for group in groups[:2]:
            prompt_loss(contenders.policy, group).backward()
        optimizer.step()
        optimizer.zero_grad()

    beside = peak_memory(step, device)
    held = 3 * sum(4 * p.numel() for p in contenders.model.parameters())
    return held + beside, beside


def relative_errors(device: str) -> dict[str, float]:
    """Of the Gramian off the diagonal, against float64 gradients, on a smaller model."""
    model = make_model(64, 2, 512).to(device)
    groups = make_groups(8, 4, 16, 512, device)
    wide = Contenders(copy.deepcopy(model).double())
    want = wide.loop(groups).cpu()
    off = ~torch.eye(len(groups), dtype=torch.bool)
    errors = {}
    for name in NAMES:
        if name != "plain":
            try:
                got = getattr(Contenders(copy.deepcopy(model)), name)(groups).detach().cpu()
            except Exception:
                errors[name] = float("nan")
            else:
                # In units of the products of norms: the error of a cosine.
                scale = torch.outer(want.diagonal(), want.diagonal()).sqrt()
                error = ((got.double() - want) / scale)[off]
                errors[name] = float(error.square().mean().sqrt())
    return errors


def contest(options: argparse.Namespace) -> None:
    model = make_model(384, 8, 8192).to(options.device)
    groups = make_groups(options.m, options.n, options.length, 8192, options.device)
    contenders = Contenders(model)
    numel = sum(p.numel() for p in model.parameters())
    print(
        f"{numel / 1e6:.0f} M parameters, {options.m} prompts x {options.n} rollouts x "
        f"{options.length} tokens, {options.device}\n"
    )
    works = {name: lambda name=name: getattr(contenders, name)(groups) for name in NAMES}
    contenders.plain(groups)
    seconds = least_seconds(works, options.repeats, options.device)
    errors = relative_errors(options.device)
    training, beside = training_peak(contenders, groups, options.device)
    print("| way | time | peak beyond training's | gradients kept | rms error of a cosine |")
    print("|---|---|---|---|---|")
    least = peak_memory(lambda: contenders.nothing_kept(groups), options.device)
    for name, label in NAMES.items():
        if isinstance(seconds[name], str):
            print(f"| {label} | {seconds[name]} | – | – | – |")
            continue
        peak = peak_memory(works[name], options.device)
        beyond, kept = max(peak - beside, 0) / training, max(peak - least, 0) / training
        error = f"{errors[name]:.1e}" if name in errors else "–"
        ratio = seconds[name] / seconds["plain"]
        print(f"| {label} | {ratio:.2f} | {beyond:.1%} | {kept:.1%} | {error} |", flush=True)


def growth(options: argparse.Namespace) -> None:
    """The guard's time beside the plain one's, one size changed at a time."""
    base = {"m": 4, "n": 8, "length": 64, "hidden": 384, "layers": 8, "vocabulary": 8192}
    changes = [{}, {"m": 12}, {"n": 24}, {"length": 192}, {"hidden": 768}, {"vocabulary": 32768}]
    print("\nTime in units of the first plain one (and of its own):\n")
    print("| changed | parameters | plain | exact | sketch | sketches kept |")
    print("|---|---|---|---|---|---|")
    first = None
    for change in changes:
        size = base | change
        model = make_model(size["hidden"], size["layers"], size["vocabulary"]).to(options.device)
        groups = make_groups(
            size["m"], size["n"], size["length"], size["vocabulary"], options.device
        )
        contenders = Contenders(model)
        contenders.plain(groups)
        works = {
            name: lambda name=name: getattr(contenders, name)(groups)  # noqa: B023
            for name in ("plain", "exact", "sketch")
        }
        seconds = least_seconds(works, options.repeats, options.device)
        first = first or seconds["plain"]
        training, _ = training_peak(contenders, groups, options.device)
        least = peak_memory(lambda: contenders.nothing_kept(groups), options.device)  # noqa: B023
        kept = (peak_memory(works["sketch"], options.device) - least) / training
        label = ", ".join(f"{k} {base[k]} → {v}" for k, v in change.items()) or "nothing"
        numel = sum(p.numel() for p in model.parameters())
        cells = [f"{seconds[w] / first:.2f} ({seconds[w] / seconds['plain']:.2f})" for w in works]
        print(f"| {label} | {numel / 1e6:.0f} M | {' | '.join(cells)} | {kept:.1%} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--m", type=int, default=8, help="prompts")
    parser.add_argument("--n", type=int, default=8, help="rollouts of each")
    parser.add_argument("--length", type=int, default=64, help="tokens of each")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", choices=["contest", "growth"])
    options = parser.parse_args()
    if options.only != "growth":
        contest(options)
    if options.only != "contest":
        growth(options)


if __name__ == "__main__":
    main()
