"""Lightning with DeepSpeed on one GPU: bit-identical, or refused before training."""

from extras import needs

needs("lightning", "trl")

import hosts
import lightning as L
import pytest
import torch
from gpu_lane import REHEARSAL, optional
from gpu_runs import fit, make_module
from trl_runs import same_weights

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_warn_leaves_weights_and_losses_bit_identical(tmp_path, stage):
    optional("deepspeed")
    if REHEARSAL:
        pytest.skip("Lightning's DeepSpeedStrategy refuses a CPU")

    def run(name, guard):
        torch.manual_seed(0)
        strategy = L.pytorch.strategies.DeepSpeedStrategy(stage=stage)
        how = {"strategy": strategy, "precision": "bf16-mixed", "gradient_clip_val": None}
        return fit(make_module(hosts.model()), tmp_path / name, guard, **how)

    alone, again = run("alone", None), run("again", None)
    if not same_weights(alone.weights, again.weights):
        pytest.fail("two runs without a guard differ: nothing can be told", pytrace=False)
    try:
        guarded = run("guarded", hosts.settings(hosts.HOSTS["lightning"]))
    except ValueError as error:
        if "DeepSpeed" not in str(error):
            raise
        pytest.skip(f"refused: {error}")
    assert guarded.guard.history
    assert not guarded.guard.failures
    assert same_weights(alone.weights, guarded.weights)
    assert alone.losses == guarded.losses
