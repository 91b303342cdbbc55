"""What is installed: the wheel holds the package and nothing else, and needs no checkout."""

from extras import needs
from places import ROOT, TESTS, WORKERS

needs("trl")

import os
import shutil
import subprocess
import sys
import tarfile
from zipfile import ZipFile

import pytest

BUILD = """
import sys
from setuptools import build_meta

print(getattr(build_meta, "build_" + sys.argv[1])(sys.argv[2]))
"""
TEMPLATES = """
from importlib.resources import files

found = files("passk_guard.reporting")
print(*sorted(f.name for f in found.iterdir() if f.name.startswith("page.")))
"""


def python(*arguments, cwd, path=()):
    """Run Python outside the checkout, which is not on its path."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**kept, "PYTHONPATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def build(kind, source, out):
    """A wheel or an sdist, by the backend that pyproject.toml names."""
    told = python("-c", BUILD, kind, out, cwd=source)
    return out / told.splitlines()[-1]


def package():
    """What is to be in a wheel, under its name there."""
    folders = {
        "passk_guard": ROOT / "passk_guard",
        "passk_guard/integrations": ROOT / "integrations",
    }
    for name, folder in folders.items():
        for file in folder.rglob("*"):
            inside = file.relative_to(folder).as_posix()
            if name == "passk_guard" and inside.startswith("integrations"):
                continue  # a link to the other
            if file.suffix in (".py", ".j2", ".css", ".js") or file.name == "py.typed":
                yield f"{name}/{inside}"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The sdist, a wheel from the checkout, and one from the sdist."""
    out = tmp_path_factory.mktemp("made")
    source = out / "checkout"  # building leaves files behind
    left_out = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "runs")
    shutil.copytree(ROOT, source, symlinks=True, ignore=left_out)
    sdist = build("sdist", source, out)
    with tarfile.open(sdist) as packed:
        packed.extractall(out / "unpacked", filter="data")
    [unpacked] = (out / "unpacked").iterdir()
    (out / "again").mkdir()
    return {"wheel": build("wheel", source, out), "again": build("wheel", unpacked, out / "again")}


@pytest.fixture(scope="module")
def installed(made, tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site]
    python(*pip, made["wheel"], cwd=site)
    return site


@pytest.mark.parametrize("which", ["wheel", "again"])
def test_a_wheel_holds_every_module_and_no_test(made, which):
    with ZipFile(made[which]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == set(package())


def test_what_is_installed_probes(installed, tmp_path):
    worker, path = WORKERS / "installed_worker.py", [installed, TESTS / "helpers"]
    assert python(worker, installed, cwd=tmp_path, path=path) == "True\n"


def test_the_command_and_the_page_s_template_are_installed(installed, tmp_path):
    command = installed / "bin" / "passk-guard"
    assert python(command, "--version", cwd=tmp_path, path=[installed]).startswith("passk-guard ")
    page = python("-c", TEMPLATES, cwd=tmp_path, path=[installed]).split()
    assert page == sorted(file.name for file in (ROOT / "passk_guard/reporting").glob("page.*"))
    assert "page.html.j2" in page


def test_the_adapter_for_trl_is_installed(installed, tmp_path):
    code = "from passk_guard.integrations import trl; print(trl.PassKGuardCallback, trl.__file__)"
    said = python("-W", "ignore", "-c", code, cwd=tmp_path, path=[installed])
    assert str(installed) in said.splitlines()[-1]
