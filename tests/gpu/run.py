"""All that needs a GPU, part by part, into docs/gpu.json, on any single one.

    python tests/gpu/run.py                # or: make gpu GPU_PYTHON=python
    python tests/gpu/run.py --rehearsal    # on the CPU, at toy size: does the lane itself work?
    python tests/gpu/run.py --list

Each part is a process of its own with a time limit. What a part came to is written down at once,
and what passed is not run again, so it may be stopped and started at will, as long as neither the
code nor the device changes. Nothing is installed and nothing is downloaded: models are made from
configs. See docs/production.md.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COST, SHARE = "tests/benchmarks/gpu_cost.py", "tests/benchmarks/gpu_share.py"
FIGURES = "FIGURES"  # in a command: the file that it leaves its figures in


@dataclass(frozen=True)
class Part:
    """One process.

    Attributes:
        name: in the document.
        seconds: time limit.
        script: command line for Python.
        tests: arguments for pytest, in place of a script.
        tiny: further arguments of the script in a rehearsal.
        needs: package without which the part is skipped.
    """

    name: str
    seconds: int
    script: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    tiny: tuple[str, ...] = ("--device", "cpu", "--tiny")
    needs: str | None = None

    def command(self, figures: Path, rehearsal: bool) -> list[str]:
        if self.tests:
            return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *self.tests]
        script = [str(figures) if word == FIGURES else word for word in self.script]
        return [sys.executable, *script, *(self.tiny if rehearsal else ())]


def _cost(size: str, tokens: int, seconds: int) -> Part:
    cell = ("--size", size, "--tokens", str(tokens), "--out", FIGURES)
    return Part(f"cost, {size}, {tokens} tokens", seconds, (COST, *cell))


def _share(budget: str) -> Part:
    return Part(f"share at {float(budget):.0%}", 300, (SHARE, "--budget", budget, "--out", FIGURES))


_IDENTITY = "tests/gpu/test_gpu_identity.py"
PARTS = [
    Part("Gramian", 240, tests=("tests/gpu/test_gpu_gramian.py",)),
    Part("identity, TRL", 480, tests=(_IDENTITY, "-k", "[trl")),
    Part("identity, Trainer", 480, tests=(_IDENTITY, "-k", "[transformers")),
    Part("identity, Lightning", 480, tests=(_IDENTITY, "-k", "[lightning")),
    _cost("0.5B", 512, 300),
    _cost("1.5B", 512, 300),
    _cost("0.5B", 2048, 360),
    _cost("1.5B", 2048, 420),
    _share("0.02"),
    _share("0.01"),
    Part("DeepSpeed", 300, tests=("tests/gpu/test_gpu_deepspeed.py",)),
    Part("vLLM", 480, tests=("tests/integrations/test_vllm.py", "-m", "vllm"), needs="vllm"),
    Part(
        "demo",
        420,
        script=("examples/demo.py", "--gpu", "--out", "runs/gpu-demo", "--figures", FIGURES),
        tiny=("--gpu", "--steps", "4", "--warm-up", "50"),
    ),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rehearsal", action="store_true", help="on the CPU, at toy size")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], metavar="PART")
    parser.add_argument("--again", action="store_true", help="also what passed before")
    parser.add_argument("--minutes", type=float, help="start no part after so many")
    parser.add_argument("--keep", type=Path, default=ROOT / "build", help="folder of a rehearsal")
    parser.add_argument("--list", action="store_true", help="the parts, and what they may take")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{part.seconds:5} s  {part.name}" for part in PARTS))
        return
    rehearsal = options.rehearsal or os.environ.get("PASSK_GUARD_GPU_REHEARSAL") == "1"
    environment = _environment(rehearsal)
    machine = _machine(environment, rehearsal)
    target = ROOT / "docs" / "gpu.json"
    if rehearsal:
        print("REHEARSAL on the CPU: nothing here is a GPU's, and docs/gpu.json is not written.")
        target = options.keep / "gpu.json"
        target.parent.mkdir(parents=True, exist_ok=True)
    found = finished(target, machine, rehearsal)
    began = time.monotonic()
    for part in PARTS:
        late = options.minutes and time.monotonic() - began > 60 * options.minutes
        done = found["parts"][part.name]["outcome"] == "passed" and not options.again
        if not done and not late and part.name in (options.only or [part.name]):
            print(f"{part.name} (at most {part.seconds} s) ...", flush=True)
            found["parts"][part.name] = said = run(part, environment, rehearsal)
            print(f"    {said['outcome']} {said.get('reason', '')}", flush=True)
            target.write_text(json.dumps(found, indent=1) + "\n")
    print()
    for name, said in found["parts"].items():
        seconds, reason = said.get("seconds", 0), said.get("reason", "")
        print(f"{name:24} {said['outcome']:10} {seconds:6.0f} s  {reason}")
    print(f"\nIn {target}{' (a REHEARSAL)' if rehearsal else ''}")
    if any(part["outcome"] in ("failed", "timed out") for part in found["parts"].values()):
        sys.exit(1)


def finished(target: Path, machine: dict[str, Any], rehearsal: bool) -> dict[str, Any]:
    """The document so far: what this very machine with this very code left there, else nothing."""
    parts: dict[str, Any] = {part.name: {"outcome": "not run"} for part in PARTS}
    found = {"rehearsal": rehearsal, **machine, "parts": parts}
    if target.exists():
        before = json.loads(target.read_text())
        if {**before, "parts": parts} == found:
            parts |= before["parts"]
    return found


def _environment(rehearsal: bool) -> dict[str, str]:
    """One GPU, no network, and cuBLAS with a fixed workspace, or it would not repeat itself."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    own = {
        "CUDA_VISIBLE_DEVICES": first,
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
        "PASSK_GUARD_GPU_REHEARSAL": str(int(rehearsal)),
    }
    if rehearsal:
        own["OMP_NUM_THREADS"] = "1"  # much faster for tiny models
    return {**os.environ, **own}


_ASK = """
import json, importlib.metadata as m, platform, torch
import passk_guard.integrations
there = torch.cuda.is_available()
def release(name):
    try: return m.version(name)
    except m.PackageNotFoundError: return None
names = ("torch transformers trl accelerate lightning peft bitsandbytes deepspeed vllm datasets"
         " numpy").split()
p = torch.cuda.get_device_properties(0) if there else None
print(json.dumps({
  "device": p.name if there else None,
  "memory_gib": round(p.total_memory / 2**30, 1) if there else None,
  "capability": f"{p.major}.{p.minor}" if there else None,
  "cuda": torch.version.cuda or torch.version.hip,
  "python": platform.python_version(),
  "releases": {n: v for n in names if (v := release(n))},
}))
"""


def _machine(environment: dict[str, str], rehearsal: bool) -> dict[str, Any]:
    """Device, driver, releases and the code; ends the program where there is no GPU."""
    asked = subprocess.run(
        [sys.executable, "-c", _ASK], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    if asked.returncode:
        sys.exit(
            f"{asked.stderr}\nThis Python cannot import what is needed. In your environment: "
            "pip install --no-deps -e . (docs/production.md says what else)."
        )
    found: dict[str, Any] = json.loads(asked.stdout.splitlines()[-1])
    if found["device"] is None and not rehearsal:
        sys.exit(
            f"No GPU: torch.cuda.is_available() is false in {sys.executable}. Name the Python that "
            "has yours (make gpu GPU_PYTHON=...), or rehearse on the CPU: --rehearsal."
        )
    return {**found, "driver": _driver(), "source": _source()}


def _driver() -> str | None:
    """NVIDIA's, where its tool is at hand."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.stdout.strip().partition("\n")[0] or None


def _source() -> str:
    """A digest of the code that is run: figures of one and another do not mix."""
    digest = hashlib.sha256()
    folders = ("passk_guard", "integrations", "examples", "tests/gpu", "tests/helpers")
    files = [f for folder in folders for f in sorted((ROOT / folder).rglob("*.py"))]
    for file in [*dict.fromkeys(f.resolve() for f in files), ROOT / COST, ROOT / SHARE]:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def run(part: Part, environment: dict[str, str], rehearsal: bool) -> dict[str, Any]:
    """One part, in a process of its own: its outcome, its figures, its output where it failed."""
    if part.needs and importlib.util.find_spec(part.needs) is None:
        return {"outcome": "skipped", "reason": f"{part.needs} is not installed"}
    with tempfile.TemporaryDirectory() as folder:
        figures, output = Path(folder) / "figures", Path(folder) / "output"
        began = time.monotonic()
        with output.open("w") as file:
            process = subprocess.Popen(
                part.command(figures, rehearsal),
                cwd=ROOT,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            status = _waited(process, part.seconds)
        found: dict[str, Any] = {"seconds": round(time.monotonic() - began, 1)}
        said = output.read_text(errors="replace").strip()
        if figures.exists():
            found["figures"] = json.loads(figures.read_text())
        if status == 0:
            last = said.rpartition("\n")[2] if part.tests else ""  # as "3 passed, 1 skipped"
            return {"outcome": "passed", **found, "reason": last}
        why = f"stopped after {part.seconds} s" if status is None else f"exit status {status}"
        outcome = "timed out" if status is None else "failed"
        return {"outcome": outcome, **found, "reason": why, "output": said[-4000:]}


def _waited(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Its exit status; ``None`` where it, and what it started, was ended at its limit."""
    try:
        return process.wait(seconds)
    except BaseException as error:  # Ctrl-C, too: it has a session of its own
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            return None
        raise


if __name__ == "__main__":
    main()
