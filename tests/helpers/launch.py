"""Real processes for tests: ``torchrun`` on this machine, with this checkout's package."""

import os
import subprocess
import sys

from places import ROOT, WORKERS


def torchrun(worker, *arguments, processes=2, port=29517):
    """Run a worker file on so many processes; a hang ends in an error after four minutes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    command += ["--master_port", str(port), str(WORKERS / worker), *map(str, arguments)]
    # The package of this checkout, whichever one is installed, and the test that starts this.
    path = os.pathsep.join([str(ROOT), *sys.path])
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    )
    assert result.returncode == 0, result.stderr[-3000:]
