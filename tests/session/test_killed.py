"""Killed without warning in the middle of an intervention, resumed: as if nothing had happened."""

from extras import needs

needs("trl", "lightning")

import signal
import warnings

import killed_worker
import pytest
import torch
from clockless import clockless
from forked import run
from hosts import SAVE
from trl_runs import same_weights


def worker(host, out, kill_at=0, resume=0):
    out.mkdir(exist_ok=True)
    [ended] = run("killed_worker.py", host, out, kill_at, resume)
    return ended


@pytest.mark.parametrize("host", ["trl", "lightning"])
def test_a_killed_run_resumes_to_where_the_whole_one_ends(tmp_path, host):
    (tmp_path / "whole").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        killed_worker.main(host, tmp_path / "whole", kill_at=0, resume=0)
    code, _ = worker(host, tmp_path / "killed", kill_at=SAVE + 2)  # two steps past the checkpoint
    assert code == -signal.SIGKILL
    assert not (tmp_path / "killed" / "end.pt").exists()
    code, errors = worker(host, tmp_path / "killed", resume=SAVE)
    assert code == 0, errors[-3000:]
    whole, again = (
        torch.load(tmp_path / name / "end.pt", weights_only=True) for name in ("whole", "killed")
    )
    assert (
        whole["guard"]["remedy"]["state"]["objective"]["pass1_weight"] > 0.3
    )  # in an intervention
    # k, λ, CUSUM, track, reference, schedule, stored rollouts and the held-out order.
    assert clockless(whole["guard"]) == clockless(again["guard"])
    assert same_weights(whole["weights"], again["weights"])
