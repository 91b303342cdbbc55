"""``passk-guard probe MODEL``: would pass@k training hurt pass@1 on this model?"""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from passk_guard.checkpoints.probe_policy import PolicyProbe, probe_policy
from passk_guard.cli.models import add_model_options, held_out, load_policy, short_name
from passk_guard.cli.output import check_page, print_table, print_text
from passk_guard.cli.verifiers import named_verifier
from passk_guard.statistics.policy_reading import PolicyReading

_MOST_KS = 8  # lines of the table


def add(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "probe",
        help="would pass@k training hurt pass@1 on this model?",
        description="Sample and verify a model on held-out prompts, and take gradients: what it "
        "solves in k tries, and whether a step on pass@k would lower pass@1. Nothing is trained. "
        "Every batch goes to a journal: after Ctrl-C the same command goes on. Exit status 0, 3 "
        "for bad input, 130 after Ctrl-C.",
    )
    parser.add_argument("model", metavar="MODEL", help="a name on the hub, or a folder")
    add_model_options(parser, needed=True)
    group = parser.add_argument_group("probe")
    group.add_argument("-k", type=int, default=8, help="of the objective, pass@k (default: 8)")
    group.add_argument(
        "-n", "--num-generations", type=int, metavar="N", help="rollouts per prompt (default: 2k)"
    )
    group.add_argument(
        "--num-prompts", type=int, default=512, metavar="N", help="at most (default: 512)"
    )
    group.add_argument("--prompts-at-once", type=int, default=64, metavar="N")
    group.add_argument("--micro-batch", type=int, metavar="N", help="rollouts per backward")
    group.add_argument("--early-stop", action="store_true", help="stop as soon as the sign is sure")
    group = parser.add_argument_group("output")
    group.add_argument(
        "--journal", type=Path, metavar="FILE", help="(default: probe-MODEL.jsonl, here)"
    )
    group.add_argument("--out", type=Path, metavar="PAGE", help="write an HTML page, too")
    group.add_argument("--json", action="store_true", help="print the figures as JSON instead")
    group.add_argument(
        "--log-prompts", action="store_true", help="quote prompts in journal, page and JSON"
    )
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Carry it out."""
    check_page(given.out)
    journal = given.journal or Path(f"probe-{short_name(given.model, given.adapter)}.jsonl")
    verifier = named_verifier(given.verifier)
    rows = held_out(given)
    policy = load_policy(given.model, given, rows, given.adapter)
    try:
        found = probe_policy(
            policy,
            rows,
            verifier,
            k=given.k,
            num_generations=given.num_generations,
            num_prompts=given.num_prompts,
            prompts_at_once=given.prompts_at_once,
            success_threshold=given.success_threshold,
            group_by=given.group_by,
            early_stop=given.early_stop,
            seed=given.seed,
            journal=journal,
            log_prompts=given.log_prompts,
            name=given.model if given.adapter is None else f"{given.model} + {given.adapter}",
            micro_batch=given.micro_batch,
        )
    except KeyboardInterrupt:
        where = shlex.quote(str(journal))
        raise KeyboardInterrupt(f"The same command goes on from {where}.") from None
    if given.out is not None:
        given.out.write_text(found.page(given.log_prompts), encoding="utf-8")
    if given.json:
        print(json.dumps(found.record(given.log_prompts), indent=2, allow_nan=False))
    else:
        _show(found, given)
    return 0


def _show(found: PolicyProbe, given: argparse.Namespace) -> None:
    print_text(found.sentence)
    print()
    print_table(["k", "pass@k", "95 %", "z of ⟨∇J_k, ∇J_1⟩"], _of_ks(found.reading))
    if found.reading.groups:
        print()
        print_table(
            [str(given.group_by), "prompts", "pass@1", f"pass@{given.k}", "z of the step"],
            [
                [
                    label,
                    str(group.prompts),
                    f"{group.pass_at_1.value:.3f}",
                    f"{group.pass_at_k.value:.3f}",
                    "" if group.z is None else f"{group.z:+.1f}",
                ]
                for label, group in found.reading.groups.items()
            ],
        )
    print()
    print_text(*found.remarks)
    print(f"Journal: {found.journal}" + (f"\nPage: {given.out}" if given.out else ""))


def _of_ks(reading: PolicyReading) -> list[list[str]]:
    """Powers of two, the target and the last."""
    last = len(reading.pass_at)
    wanted = {1, reading.k, last, *(2**i for i in range(_MOST_KS) if 2**i <= last)}
    return [
        [
            str(k),
            f"{one.value:.3f}",
            f"{one.low:.3f} to {one.high:.3f}",
            f"{reading.curve[k - 1].z:+.1f}" if reading.curve else "no signal",
        ]
        for k in sorted(wanted)
        for one in [reading.pass_at[k - 1]]
    ]
