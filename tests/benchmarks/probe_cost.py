"""What do per-prompt gradients cost beside one plain forward and backward? One command, tables.

    python tests/benchmarks/probe_cost.py        # about fifteen minutes on one core

All on the same rollouts, on a Llama of 20 M parameters. Times are ratios to the plain forward and
backward of the same run, prompt by prompt or many prompts together, whichever is faster; the least
of several, alternating; on the CPU they are processor time on one thread, so that a busy machine
does little harm. A probe needs log-probs, too: what does not give them pays a scoring pass beside.
Memory is what the allocator saw: the peak beside that of the plain one, and what is kept when all
is done, in units of a training step's peak (parameters, Adam's moments, and the most that forward,
backward and step hold beside them). Rollouts have no padding, because not every contender could
take it. TorchJD and bergson take part where they are installed: ``pip install torchjd bergson``.
The CPU's figures are left in ``results/probe_cost.json``.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
warnings.simplefilter("ignore")

import torch
from gradient_contenders import Contenders, Groups, make_groups, make_model, prompt_loss
from peak_memory import peak_memory

RESULTS = Path(__file__).parent / "results" / "probe_cost.json"
CONTESTS = {"64 tokens": (8, 8, 64, 8), "8 tokens": (32, 8, 8, 64)}
"""Prompts, rollouts of each, tokens of each, rollouts at once."""

NAMES = {
    "plain": "plain forward and backward, prompt by prompt",
    "batched": "the same, prompts together",
    "scoring": "scoring alone",
    "hooked_sketch": "**guard, watched layers, sketch**",
    "hooks": "**guard, watched layers, exact**",
    "sketch": "guard, a backward per prompt, sketch",
    "exact": "guard, a backward per prompt, exact",
    "bergson": "bergson, two-sided p = 16, linear layers only",
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


def relative_errors(seconds: dict[str, Any], device: str) -> dict[str, float]:
    """Of the Gramian off the diagonal, against float64 gradients, on a smaller model."""
    model = make_model(64, 2, 512).to(device)
    groups = make_groups(8, 4, 16, 512, device)
    wide = Contenders(copy.deepcopy(model).double())
    want = wide.loop(groups).cpu()
    off = ~torch.eye(len(groups), dtype=torch.bool)
    errors = {}
    for name in NAMES:
        if name in _NO_GRAMIAN or isinstance(seconds[name], str):
            continue
        got = getattr(Contenders(copy.deepcopy(model), 32), name)(groups).detach().cpu()
        # In units of the products of norms: the error of a cosine.
        scale = torch.outer(want.diagonal(), want.diagonal()).sqrt()
        errors[name] = float(((got.double() - want) / scale)[off].square().mean().sqrt())
    return errors


_NO_GRAMIAN = ("plain", "batched", "scoring")
_SCORES, _PLAIN = ("hooks", "hooked_sketch"), ("plain", "batched")


def contest(size: tuple[int, int, int, int], options: argparse.Namespace) -> dict[str, Any]:
    m, n, length, at_once = size
    model = make_model(384, 8, 8192).to(options.device)
    groups = make_groups(m, n, length, 8192, options.device)
    contenders = Contenders(model, at_once)
    numel = sum(p.numel() for p in model.parameters())
    print(
        f"\n{numel / 1e6:.0f} M parameters, {m} prompts x {n} rollouts x {length} tokens, "
        f"{at_once} at once, {options.device}\n"
    )
    works = contenders.works(groups, *NAMES)
    for name in ("plain", *_SCORES):  # warm; layers were compared, sketches have grown
        works[name]()
    seconds = least_seconds(works, options.repeats, options.device)
    errors = relative_errors(seconds, options.device)
    training, _ = training_peak(contenders, groups, options.device)
    plain = min(seconds[name] for name in _PLAIN)
    batched = peak_memory(works["batched"], options.device)
    print(f"Watched layers, sketch: {contenders.said}.\n")
    print("| way | time | with log-probs | peak | kept | rms error of a cosine |")
    print("|---|---|---|---|---|---|")
    least = peak_memory(lambda: contenders.nothing_kept(groups), options.device)
    figures = {}
    for name, label in NAMES.items():
        if isinstance(seconds[name], str):
            print(f"| {label} | {seconds[name]} | – | – | – | – |")
            continue
        peak = peak_memory(works[name], options.device)
        ratio, kept = seconds[name] / plain, max(peak - least, 0) / training
        scored = ratio + (name not in _SCORES) * seconds["scoring"] / plain
        error = f"{errors[name]:.1e}" if name in errors else "–"
        print(
            f"| {label} | {ratio:.2f} | {'–' if name in _NO_GRAMIAN else f'{scored:.2f}'} | "
            f"{peak / batched:.2f} | {kept:.1%} | {error} |",
            flush=True,
        )
        figures[name] = {"time": round(ratio, 3), "scored": round(scored, 3)}
        figures[name] |= {"peak": round(peak / batched, 3), "kept": round(kept, 5)}
    return {"parameters": numel, **figures}


def growth(options: argparse.Namespace) -> None:
    """The guard's time beside the plain one's, one size changed at a time."""
    base = {"m": 4, "n": 8, "length": 64, "hidden": 384}
    base["vocabulary"] = 8192
    first = None
    print("\nTime in units of the first plain one (and of its own):\n")
    print("| changed | parameters | plain | a backward per prompt | watched | sketches kept |")
    print("|---|---|---|---|---|---|")
    for key, factor in [("m", 1), ("m", 3), ("n", 3), ("length", 3), ("hidden", 2)]:
        size = base | {key: factor * base[key]}
        model = make_model(size["hidden"], 8, size["vocabulary"]).to(options.device)
        groups = make_groups(
            size["m"], size["n"], size["length"], size["vocabulary"], options.device
        )
        contenders = Contenders(model, size["n"])
        works = contenders.works(groups, "plain", "sketch", "hooked_sketch")
        for work in works.values():
            work()
        seconds = least_seconds(works, options.repeats, options.device)
        first = first or seconds["plain"]
        training, _ = training_peak(contenders, groups, options.device)
        least = peak_memory(
            contenders.works(groups, "nothing_kept")["nothing_kept"], options.device
        )
        kept = (peak_memory(works["hooked_sketch"], options.device) - least) / training
        label = "nothing" if factor == 1 else f"{key} {base[key]} → {size[key]}"
        numel = sum(p.numel() for p in model.parameters())
        cells = [f"{seconds[w] / first:.2f} ({seconds[w] / seconds['plain']:.2f})" for w in works]
        print(f"| {label} | {numel / 1e6:.0f} M | {' | '.join(cells)} | {kept:.1%} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", choices=["contest", "growth"])
    parser.add_argument("--without", nargs="*", default=[], choices=list(NAMES))
    options = parser.parse_args()
    for name in options.without:
        del NAMES[name]
    if options.only != "growth":
        figures = {name: contest(size, options) for name, size in CONTESTS.items()}
        if options.device == "cpu":
            RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    if options.only != "contest":
        growth(options)


if __name__ == "__main__":
    main()
