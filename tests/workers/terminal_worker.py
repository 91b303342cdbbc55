"""Small real runs for a terminal: ``python terminal_worker.py WHAT FOLDER``.

A host's name (``trl``, ``tqdm``, ``rich``): a run without the guard, one with it, and one with it
where the host shows no progress, with ``MARK`` between them. A signal's name: a guarded run of TRL
that gets it in a probe. ``piped``: a guarded run of TRL. ``display``: no trainer.
"""

import os
import random
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
sys.path[:0] = [
    str(Path(__file__).parents[1] / "helpers"),
    str(Path(__file__).parents[2] / "examples"),
]
warnings.simplefilter("ignore")

MARK = "~~~~"
ALARM = {"floor": 0.99}


def trl(out, *, guarded=True, shown=True, **more):
    from trl_runs import GUARD, held_out, make_trainer, near_answer, weights

    from passk_guard.integrations.trl import PassKGuardCallback

    trainer = make_trainer(
        out, disable_tqdm=not shown, reward_funcs=more.get("verify", near_answer)
    )
    if guarded:
        trainer.add_callback(PassKGuardCallback(trainer, prompts=held_out(), **GUARD, **ALARM))
    trainer.train()
    return weights(trainer)


def lightning(out, bar, *, guarded=True, shown=True):
    from hosts import module_weights
    from lightning.pytorch import callbacks
    from lightning_runs import Automatic, fit, guard

    module = Automatic()
    parts = [guard(journal=True, **ALARM)] if guarded else []
    parts += [getattr(callbacks, bar)()] if shown else []
    fit(out, module, *parts, enable_progress_bar=shown)
    return module_weights(module)


def thrice(run):
    from trl_runs import same_weights

    from passk_guard.reporting import terminal_progress as progress

    progress._SECONDS = 0.005  # no stage of so small a model is missed
    alone = run(guarded=False)
    print(MARK, flush=True)
    guarded = run()
    print(MARK, flush=True)
    run(shown=False)
    print(MARK, "same weights:", same_weights(alone, guarded))


def signalled(out, which):
    from trl_runs import near_answer

    # A shell has what it runs in the background ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    calls = []

    def verify(completions, answer, **columns):
        calls.append(1)
        if len(calls) == 4:
            time.sleep(0.6)  # until something is on the screen
            os.kill(os.getpid(), which)
        return near_answer(completions, answer)

    trl(out, verify=verify)


def display():
    """A host's bar, and looks in whose time a verifier does what it likes."""
    from tqdm.auto import tqdm

    from passk_guard.reporting.terminal_progress import TerminalProgress

    def verifier():
        for _ in tqdm(range(3), desc="verifier", leave=False):
            time.sleep(0.05)

    show = TerminalProgress(lambda: True)
    state = random.getstate()
    with tqdm(total=6, desc="host") as bar:
        for _ in range(3):
            bar.update(2)
            show("sampling", 0, 0)
            thread = threading.Thread(target=verifier, daemon=True)
            thread.start()
            thread.join(10)
            assert not thread.is_alive(), "a verifier on another thread waits for tqdm's lock"
            for i in range(8):
                show("gradients", i, 8)
                time.sleep(0.05)
            show("", 0, 0)
    assert random.getstate() == state
    time.sleep(1)  # rich does not wait for its threads to see that they are done
    assert threading.active_count() <= 2  # tqdm's monitor
    print("all is well")


def main(what, out):
    if what in ("tqdm", "rich"):
        bar = {"tqdm": "TQDMProgressBar", "rich": "RichProgressBar"}[what]
        thrice(lambda **how: lightning(out, bar, **how))
    elif what == "trl":
        thrice(lambda **how: trl(out, **how))
    elif what == "piped":
        trl(out)
    elif what == "display":
        display()
    else:
        signalled(out, signal.Signals[what])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
