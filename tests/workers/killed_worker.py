"""A guarded run that is killed in an intervention, or goes on; ``python killed_worker.py``.

Arguments: host, folder, the step after which to send SIGKILL to itself (0: never), the checkpoint
to resume from (0: none). Writes what the guard knows at the end.
"""

import os
import signal
import sys
import warnings
from pathlib import Path

import torch
from hosts import HOSTS, settings

STEPS = 8


def main(name: str, out: Path, kill_at: int, resume: int) -> None:
    def kill(step, model):
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    host = HOSTS[name]
    keywords = settings(host, action=["warn", "mix"], floor=0.99, **host.mix)
    found = host.run(out, steps=STEPS, guard=keywords, save=True, resume=resume or None, at=[kill])
    torch.save({"guard": found.guard.state_dict(), "weights": found.weights}, out / "end.pt")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
