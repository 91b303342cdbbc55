"""The API reference: every public module is in it, and it builds without a warning.

It imports all that it describes: trl, transformers, lightning.
"""

from extras import needs
from places import ROOT

needs("trl", "lightning", "sphinx")

import pkgutil
import shutil
import subprocess
import sys

import passk_guard
import passk_guard.integrations

DOCS = ROOT / "docs"


def public_modules():
    for package in (passk_guard, passk_guard.integrations):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not any(part.startswith("_") for part in found.name.split(".")):
                yield found.name


def test_the_reference_holds_every_public_module_and_builds_without_a_warning(tmp_path):
    source = tmp_path / "docs"  # the reference's pages are made there
    shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns("reference"))
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for included in ROOT.glob("*.md"):
        shutil.copy(included, tmp_path)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    command += [source, tmp_path / "html"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert found.returncode == 0, found.stderr
    pages = {page.stem for page in (tmp_path / "html" / "reference").glob("*.html")}
    assert set(public_modules()) <= pages
    page = (tmp_path / "html" / "reference" / "passk_guard.integrations.trl.html").read_text()
    assert "PassKGuardCallback" in page
    assert ":class:" not in page  # roles are resolved
