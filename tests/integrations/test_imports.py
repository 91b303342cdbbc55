"""An adapter imports no framework that its user did not, whatever else is installed."""

from extras import needs

needs("trl", "lightning", "pytorch_lightning")

import subprocess
import sys

import pytest

pytestmark = pytest.mark.long

HEAD = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy, packaging, torch

def others():
    return {name.split(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)

"""
ADAPTER = "from passk_guard.integrations.{} import PassKGuardCallback\n"
L, PL = "import lightning as package\n", "import pytorch_lightning as package\n"


def printed(code):
    """What a process of its own prints."""
    command = [sys.executable, "-c", HEAD + code]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-2000:]
    return found.stdout.split()


@pytest.mark.parametrize(
    ("adapter", "users"),
    [
        ("trl", "from trl import SFTTrainer\n"),
        ("transformers", "from transformers import Trainer\n"),
        ("lightning", PL),
    ],
)
def test_nothing_is_imported_beside_the_trainer_s_own(adapter, users):
    """TRL's GRPOTrainer, for one, imports mlflow, trackio and vLLM where they are installed."""
    code = f"{users}known = others()\n{ADAPTER.format(adapter)}print(*others() - known)\n"
    if adapter == "transformers":  # nor is a process made part of any group of processes
        code += "import accelerate; print(*accelerate.PartialState._shared_state)\n"
    assert printed(code) == ["passk_guard"]


ORDERS = {
    "pytorch_lightning last": (ADAPTER.format("lightning"), PL),
    "between, then lightning": (PL, ADAPTER.format("lightning"), L),
}
ACCEPTED = """
import pickle
callback = PassKGuardCallback()
assert isinstance(callback, package.Callback)
assert isinstance(pickle.loads(pickle.dumps(callback)), package.Callback)
quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
for given in (callback, [callback]):
    assert callback in package.Trainer(callbacks=given, accelerator="cpu", **quiet).callbacks
from lightning_utilities.core import rank_zero
print(rank_zero.log.name, *{"lightning", "pytorch_lightning"} & others())
"""


@pytest.mark.parametrize("order", ORDERS)
def test_a_trainer_of_either_package_takes_it_whichever_came_first(order):
    logger, *packages = printed("".join(ORDERS[order]) + ACCEPTED)
    users = "pytorch_lightning" if PL in ORDERS[order] else "lightning"
    if "between" not in order:
        assert logger.startswith(users)
        assert packages == [users]
