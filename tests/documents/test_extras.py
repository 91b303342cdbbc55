"""The core does without any extra; a package that a lane should have is not left out silently."""

import subprocess
import sys

import pytest
from places import ROOT, TESTS

DRAWN = {  # what of passk_guard.reporting needs matplotlib
    *("comparison_page", "course", "figures", "page", "policy_page", "probe_pictures"),
    *("rendering", "svg"),
}


@pytest.mark.parametrize(
    ("without", "said"),
    [("no_such_package", "1 skipped"), ("", "no_such_package: not installed")],
)
def test_a_missing_package_is_an_error_unless_the_lane_names_it(without, said, tmp_path):
    helpers = [
        TESTS / "helpers" / f"{name}.py" for name in ("extras", "gpu_lane", "tiny", "torch_lm")
    ]
    for path in (*helpers, TESTS / "conftest.py"):
        (tmp_path / path.name).write_text(path.read_text())
    code = 'from extras import needs\nneeds("no_such_package")\nimport no_such_package\n'
    (tmp_path / "test_it.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
    result = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PASSK_GUARD_WITHOUT": without, "PYTHONPATH": str(ROOT), "PATH": ""},
    )
    assert said in result.stdout + result.stderr
    assert (result.returncode != 0) or "skipped" in said


CORE = """
import sys
from importlib import import_module
from pkgutil import walk_packages

import numpy
import torch


def others():
    return {name.split(".")[0] for name in sys.modules} - sys.stdlib_module_names


known = others()
import passk_guard

print("passk_guard", *sorted(others() - known))
for module in walk_packages(passk_guard.__path__, "passk_guard."):
    name = module.name
    adapter, drawn = "passk_guard.integrations.", DRAWN
    if not (name.startswith(adapter) or name.endswith("__main__") or name in drawn):
        import_module(name)
        print(name, *sorted(others() - known))
"""


def test_the_core_imports_torch_and_numpy_only():
    """Every module but the adapters and what is drawn, commands included, in one process."""
    drawn = {f"passk_guard.reporting.{name}" for name in DRAWN}
    code = CORE.replace("DRAWN", repr(drawn))
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = {line.split()[0]: set(line.split()[1:]) for line in result.stdout.splitlines()}
    assert {"passk_guard", "passk_guard.cli.main", "passk_guard.reporting.report"} <= set(found)
    assert len(found) > 80
    torchs = {"sympy", "mpmath"}  # older ones load their own as they are used
    assert found["passk_guard"] - torchs == {"passk_guard"}
    assert set().union(*found.values()) - torchs <= {"passk_guard"}
