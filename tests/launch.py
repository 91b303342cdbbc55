"""Real processes for tests: ``torchrun`` on this machine, with this checkout's package."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def torchrun(worker, *arguments, processes=2, port=29517):
    """Run a worker file on so many processes; a hang ends in an error after four minutes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    command += ["--master_port", str(port), str(HERE / worker), *map(str, arguments)]
    # The package of this checkout, whichever one is installed.
    path = os.pathsep.join([str(HERE), str(HERE.parent)])
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    )
    assert result.returncode == 0, result.stderr[-3000:]
