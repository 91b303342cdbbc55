"""Lightning with DeepSpeed on one GPU; on two CPU processes: test_deepspeed.py of integrations."""

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
        pytest.skip("Lightning's DeepSpeedStrategy refuses a CPU; tests/integrations has it there")

    def run(name, guard):
        torch.manual_seed(0)
        strategy = L.pytorch.strategies.DeepSpeedStrategy(stage=stage)
        how = {"strategy": strategy, "precision": "bf16-mixed", "gradient_clip_val": None}
        return fit(make_module(hosts.model()), tmp_path / name, guard, **how)

    def same(one, other):
        # At stage 3 a parameter is empty outside a forward; each loss is what weights made it.
        weighed = stage == 3 or same_weights(one.weights, other.weights)
        return weighed and one.losses == other.losses

    alone, again = run("alone", None), run("again", None)
    assert stage == 3 or all(weight.numel() for weight in alone.weights.values())
    assert len({entry["loss"] for entry in alone.losses}) > 2
    if not same(alone, again):
        pytest.fail("two runs without a guard differ: nothing can be told", pytrace=False)
    guarded = run("guarded", hosts.settings(hosts.HOSTS["lightning"]))
    assert guarded.guard.history
    assert not guarded.guard.failures
    assert same(alone, guarded)
