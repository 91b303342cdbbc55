"""The API reference: every public module is in it, and it builds without a warning.

It imports all that it describes: trl, transformers, lightning.
"""

from extras import needs

needs("trl", "lightning", "sphinx")

import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import passk_guard
import passk_guard.integrations

DOCS = Path(__file__).parent.parent / "docs"


def public_modules():
    for package in (passk_guard, passk_guard.integrations):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            parts = found.name.split(".")
            if not found.ispkg and "cli" not in parts and not any(p[0] == "_" for p in parts):
                yield found.name


def test_every_public_module_is_in_the_reference_once():
    text = "".join(path.read_text() for path in DOCS.glob("*.rst"))
    named = re.findall(r"automodule:: (\S+)", text)
    assert sorted(named) == sorted(set(public_modules()))


def test_the_reference_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    found = subprocess.run([*command, DOCS, tmp_path], capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    page = (tmp_path / "callbacks.html").read_text()
    assert "PassKGuardCallback" in page
    assert ":class:" not in page  # roles are resolved
