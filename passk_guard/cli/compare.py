"""``passk-guard compare A B``: did pass@1 fall, and on which prompts?"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from passk_guard.checkpoints.compare import compare
from passk_guard.checkpoints.comparison import Comparison
from passk_guard.checkpoints.sampled_counts import LazyPolicy
from passk_guard.cli.models import add_model_options, held_out, is_model, load_policy, short_name
from passk_guard.cli.output import check_page, print_table, print_text
from passk_guard.cli.verifiers import named_verifier
from passk_guard.counts import FORMATS, Counts, read_counts
from passk_guard.reporting.visible import visible
from passk_guard.statistics.paired_counts import PassChange

_MOST_NAMED = 10


def add(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "compare",
        help="did pass@1 fall from one checkpoint to another, and on which prompts?",
        description="Compare two checkpoints prompt by prompt. A and B are each a file of counts "
        "(JSONL with prompt_id, correct, n), a journal of passk-guard probe, what "
        "lm-evaluation-harness, inspect_ai, lighteval or verl wrote, or a model to sample now.",
        epilog="Exit status: 0, pass@1 surely did not fall by more than --tolerance; 1, it surely "
        "did; 2, not enough data to tell; 3, bad input.",
    )
    parser.add_argument("a", metavar="A", help="the checkpoint before")
    parser.add_argument("b", metavar="B", help="the checkpoint after")
    group = parser.add_argument_group("comparison")
    group.add_argument(
        "--tolerance",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="fall of pass@1 that is accepted (default: 0.01, one point)",
    )
    group.add_argument("-k", type=int, nargs="+", metavar="K", help="tries to report")
    group.add_argument(
        "--margin",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="change of one prompt that does not make it lost or won (default: 0.1)",
    )
    group.add_argument(
        "--false-discovery",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="of the prompts named as lost or won that may be wrong (default: 0.05)",
    )
    group = parser.add_argument_group("files")
    group.add_argument("--format", choices=list(FORMATS), help="instead of recognising it")
    group.add_argument("--metric", help="the score that decides, where a file has several")
    group.add_argument("--filter", help="of lm-evaluation-harness, where a file has several")
    group.add_argument(
        "--threshold", type=float, metavar="SCORE", help="from which a rollout in a file is right"
    )
    add_model_options(parser, needed=False)
    group = parser.add_argument_group("models")
    group.add_argument("-n", "--num-generations", type=int, default=16, metavar="N")
    group.add_argument("--num-prompts", type=int, metavar="N", help="at most (default: all)")
    group.add_argument("--prompts-at-once", type=int, default=64, metavar="N")
    group.add_argument("--micro-batch", type=int, metavar="N", help="rollouts per forward")
    group.add_argument(
        "--journals", type=Path, default=Path(), metavar="FOLDER", help="for what is sampled"
    )
    group = parser.add_argument_group("output")
    group.add_argument("--out", type=Path, metavar="PAGE", help="write an HTML page, too")
    group.add_argument("--json", action="store_true", help="print the figures as JSON instead")
    group.add_argument("--log-prompts", action="store_true", help="quote prompts by their text")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Carry it out; the decision."""
    check_page(given.out)
    names = (given.a, given.b)
    loaded = [is_model(name) for name in names]
    rows = None
    if any(loaded):
        for option in ("prompts", "verifier"):
            if getattr(given, option) is None:
                which = names[loaded.index(True)]
                kind = "a model" if Path(which).is_dir() else "no file here, so taken for a model"
                raise ValueError(f"{which} is {kind}, which needs --{option}.")
        rows = held_out(given)
    try:
        found = compare(
            *(
                _model(name, given, rows or []) if model else _read(name, given)
                for name, model in zip(names, loaded, strict=True)
            ),
            prompts=rows,
            verifier=named_verifier(given.verifier) if any(loaded) else None,
            tolerance=given.tolerance,
            ks=given.k,
            margin=given.margin,
            false_discovery=given.false_discovery,
            num_generations=given.num_generations,
            num_prompts=given.num_prompts,
            prompts_at_once=given.prompts_at_once,
            success_threshold=given.success_threshold,
            group_by=given.group_by,
            seed=given.seed,
            micro_batch=given.micro_batch,
            log_prompts=given.log_prompts,
        )
    except KeyboardInterrupt:
        if not any(loaded):
            raise
        where = shlex.quote(str(given.journals))
        raise KeyboardInterrupt(f"The same command goes on from the journals in {where}.") from None
    if given.out is not None:
        given.out.write_text(found.page(), encoding="utf-8")
    if given.json:
        print(json.dumps(found.record(), indent=2, allow_nan=False))
    else:
        _show(found, given)
    return found.decision


def _model(name: str, given: argparse.Namespace, rows: Sequence[Mapping[str, Any]]) -> LazyPolicy:
    """Loaded when it is its turn. Two checkpoints may have folders of one name."""
    whole = hashlib.sha256(str(Path(name).resolve()).encode()).hexdigest()[:8]
    journal = given.journals / f"compare-{short_name(name)}-{whole}.jsonl"
    return LazyPolicy(name, lambda: load_policy(name, given, rows), journal)


def _read(name: str, given: argparse.Namespace) -> Counts:
    return read_counts(
        name,
        format=given.format,
        metric=given.metric,
        filter=given.filter,
        threshold=given.threshold,
        name=name,
    )


def _show(found: Comparison, given: argparse.Namespace) -> None:
    print_text(found.sentence)
    print()
    print_table(
        ["k", "before", "after", "change in points", "95 %", "visible from"],
        [
            [
                str(one.k),
                f"{one.before:.3f}",
                f"{one.after:.3f}",
                f"{100 * one.change:+.1f}",
                f"{100 * one.low:+.1f} to {100 * one.high:+.1f}",
                f"{100 * one.visible:.1f}",
            ]
            for one in _shown(found)
        ],
    )
    if found.groups:
        print()
        print_table(
            ["group", "prompts", "pass@1 before", "after", "change", "95 %"],
            [
                [
                    group.name,
                    str(group.prompts),
                    f"{one.before:.3f}",
                    f"{one.after:.3f}",
                    f"{100 * one.change:+.1f}",
                    f"{100 * one.low:+.1f} to {100 * one.high:+.1f}",
                ]
                for group in found.groups
                for one in group.changes[:1]
            ],
        )
    for what, prompts in (("Lost", found.lost), ("Won", found.won)):
        if prompts:
            print(f"\n{what} by more than {100 * found.margin:g} points: {len(prompts)} prompts")
            for one in prompts[:_MOST_NAMED]:
                counts = f"{one.before}/{one.n_before} -> {one.after}/{one.n_after}"
                quote = "" if one.text is None else f"  {visible(one.text, 60)}"
                print(f"  {visible(one.id)}  {counts}{quote}")
            if len(prompts) > _MOST_NAMED:
                print(f"  and {len(prompts) - _MOST_NAMED} more: --json or --out names all")
    print()
    print_text(*found.remarks)
    if given.out is not None:
        print(f"Page: {given.out}")


def _shown(found: Comparison) -> list[PassChange]:
    """Powers of two, and the last."""
    last = found.changes[-1].k
    return [one for one in found.changes if one.k & (one.k - 1) == 0 or one.k == last]
