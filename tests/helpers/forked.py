"""Real processes for tests that need trainers: forked from one that has imported them.

Importing the trainers takes ten times as long as a small run. What is forked has no run behind it,
no thread and no group of processes: it goes on as ``python worker.py`` does after its imports.
"""

import gc
import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
import time
from multiprocessing.forkserver import ensure_running
from pathlib import Path

from places import WORKERS

TIMEOUT = 240  # seconds; a hang ends in an error


def _context():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hosts"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    try:
        ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context


def _main(worker, arguments, environment, output):
    """The worker's file as the main program, in the forked process."""
    assert "hosts" in sys.modules, "the process that is forked has not imported the trainers"
    gc.freeze()  # see tests/conftest.py
    os.environ.update(environment)
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = [worker, *arguments]
    runpy.run_path(worker, run_name="__main__")


def run(worker, *arguments, environments=({},), patience=0.0, timeout=TIMEOUT):
    """Run a worker file in one process for each environment, at the same time.

    Args:
        worker: its name.
        *arguments: its own.
        environments: of the processes.
        patience: seconds that the others have left once one has failed.
        timeout: seconds for all of them.

    Returns:
        Exit code and output of each. No code: it was still running as another one had failed, or
        the time was up, and was stopped.
    """
    context, started = _context(), []
    path, arguments = str(WORKERS / worker), [str(a) for a in arguments]
    with tempfile.TemporaryDirectory() as folder:
        for i, environment in enumerate(environments):
            output = Path(folder) / str(i)
            target = (path, arguments, environment, output)
            process = context.Process(target=_main, args=target)
            process.start()
            started.append((process, output))
        end = time.monotonic() + timeout
        codes = [None]
        while None in codes and time.monotonic() < end:
            if any(codes):
                end = min(end, time.monotonic() + patience)
                patience = timeout  # counted once
            time.sleep(0.02)
            codes = [process.exitcode for process, _ in started]
        for process, _ in started:
            process.kill()
            process.join()
        return [(code, out.read_text()) for code, (_, out) in zip(codes, started, strict=True)]


def run_together(worker, *arguments, processes=2, patience=0.0):
    """:func:`run` on so many processes, with the environment that torchrun gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "none",
        "TORCHELASTIC_USE_AGENT_STORE": "False",
    }
    ranks = [{**shared, "RANK": str(i), "LOCAL_RANK": str(i)} for i in range(processes)]
    return run(worker, *arguments, environments=ranks, patience=patience)


def together(worker, *arguments, processes=2):
    """Run a worker file on so many processes to its end."""
    ended = run_together(worker, *arguments, processes=processes)
    failed = [output for code, output in ended if code]
    assert not failed, failed[0][-3000:]
    assert all(code == 0 for code, _ in ended), [output[-3000:] for _, output in ended]
