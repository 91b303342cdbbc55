"""``passk-guard watch FOLDER``: look at checkpoints as a run writes them, beside the run."""

from __future__ import annotations

import argparse
import shlex
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from passk_guard.cli.models import add_model_options, held_out, load_policy
from passk_guard.cli.verifiers import named_verifier
from passk_guard.statistics.interval import Z95
from passk_guard.statistics.track import Track


def add(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "watch",
        help="follow a run's checkpoints: does pass@1 fall?",
        description="Look at the checkpoints in a folder, and at new ones as they appear, whoever "
        "trains: pass@1 since the first one, and whether a step on pass@k would lower it. The run "
        "is not touched. After Ctrl-C the same command goes on where it was.",
        epilog="Exit status: 0, pass@1 surely did not fall by more than --tolerance; 1, it surely "
        "did, or there was an alarm; 2, not enough data to tell; 3, bad input; 130, after Ctrl-C.",
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where the checkpoints appear")
    add_model_options(parser, needed=True)
    group = parser.add_argument_group("watch")
    group.add_argument("-k", type=int, default=8, help="of the objective, pass@k (default: 8)")
    group.add_argument(
        "--once", action="store_true", help="end when all that is there has been looked at"
    )
    group.add_argument("--stop-on-alarm", action="store_true", help="end at the first alarm")
    group.add_argument(
        "--pattern",
        metavar="REGEX",
        help="a checkpoint's path below FOLDER, its step in brackets (default: checkpoint-N, "
        "step_N, global_step_N/actor/huggingface)",
    )
    group.add_argument("--every", type=int, default=1, metavar="STEPS", help="between two looks")
    group.add_argument(
        "--tolerance", type=float, default=0.01, metavar="SHARE", help="(default: 0.01, one point)"
    )
    group.add_argument("--reference-prompts", type=int, default=512, metavar="N")
    group.add_argument("--rollouts-per-look", type=int, default=1024, metavar="N")
    group.add_argument("--micro-batch", type=int, metavar="N", help="rollouts per backward")
    group.add_argument("--poll", type=float, default=20.0, metavar="SECONDS")
    group.add_argument(
        "--out", type=Path, metavar="FOLDER", help="for journal and curves (FOLDER/passk_guard)"
    )
    group.add_argument("--log-prompts", action="store_true", help="quote prompts in the journal")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Carry it out; the decision."""
    from passk_guard.integrations.folder import FolderWatch

    with suppress(ImportError):  # what is missing is said as the model is loaded
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # one for each checkpoint
    verifier = named_verifier(given.verifier)
    rows = held_out(given)
    watch = FolderWatch(
        given.folder,
        rows,
        verifier,
        load=lambda path: load_policy(str(path), given, rows, given.adapter),
        out=given.out,
        pattern=given.pattern,
        once=given.once,
        stop_on_alarm=given.stop_on_alarm,
        poll=given.poll,
        success_threshold=given.success_threshold,
        micro_batch=given.micro_batch,
        k=given.k,
        every=given.every,
        pass1_tolerance=given.tolerance,
        reference_prompts=given.reference_prompts,
        rollouts_per_look=given.rollouts_per_look,
        group_by=given.group_by,
        seed=given.seed,
        log_prompts=given.log_prompts,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for look in watch:
            print(f"step {look.checkpoint.step}: {_pass1(look.probe.track)}", flush=True)
            if look.probe.alarm is not None:
                if look.last_good is None:
                    print("No checkpoint is within the tolerance.", flush=True)
                else:
                    good, track = look.last_good
                    path = shlex.quote(str(good.path))
                    print(f"Last good checkpoint: {path}, {_pass1(track)}", flush=True)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("The same command goes on where this one was.") from None
    return watch.decision


def _pass1(track: Track) -> str:
    change, half = 100 * track.change, 100 * Z95 * track.change_se
    return f"pass@1 {track.pass_at_1:.3f}, {change:+.1f} ± {half:.1f} points since the start"
