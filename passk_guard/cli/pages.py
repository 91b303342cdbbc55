"""The page that ``--out`` names: what it needs is asked for before the work, not after."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path


def check_page(path: Path | None) -> None:
    """Whether a page could be written there.

    Raises:
        ValueError: a package is missing, or the path is a folder.
        OSError: its folder cannot be made.
    """
    if path is None:
        return
    for package in ("jinja2", "matplotlib"):
        try:
            import_module(package)
        except ImportError as error:
            raise ValueError(
                f"--out needs {package}: pip install 'passk-guard[report]'. --json works without."
            ) from error
    if path.is_dir():
        raise ValueError(f"--out {path} is a folder. Give a file in it, such as {path}/page.html.")
    path.parent.mkdir(parents=True, exist_ok=True)
