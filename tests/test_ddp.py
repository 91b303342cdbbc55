"""Two real processes: one verdict, and the training run untouched."""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def torchrun(out, *arguments):
    out.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--master_port", "29517", str(HERE / "ddp_worker.py"), str(out), *arguments]
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
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_same_verdict_on_both_ranks_and_training_untouched(tmp_path):
    guarded = torchrun(tmp_path / "guarded", "guarded")
    alone = torchrun(tmp_path / "alone", "alone")
    assert [p[0] for p in guarded[0]["history"]] == [0, 2, 4]
    assert guarded[0]["history"] == guarded[1]["history"]
    assert guarded[0]["failures"] == []
    assert guarded[0]["weights"] == guarded[1]["weights"] == alone[0]["weights"]


def test_pkpo_on_groups_that_straddle_processes(tmp_path):
    """The replaced advantages are this process's slice, or the ranks' identity check fails."""
    passk = torchrun(tmp_path / "pkpo", "guarded", "pkpo")
    assert passk[0]["history"] == passk[1]["history"]
    assert passk[0]["failures"] == []
    alone = torchrun(tmp_path / "alone", "alone")
    assert passk[0]["weights"] != alone[0]["weights"]
    kept = torchrun(tmp_path / "kept", "guarded", "pkpo, lambda 1")
    assert kept[0]["weights"] == kept[1]["weights"] == alone[0]["weights"]
