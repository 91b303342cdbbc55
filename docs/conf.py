"""Sphinx: the pages of this folder, the README, and the API reference from docstrings.

``make docs`` builds it into build/docs.
"""

import os.path
import re
from pathlib import Path

import passk_guard

project = "passk-guard"
release = passk_guard.__version__
copyright = "The passk-guard authors"
extensions = [
    *(f"sphinx.ext.{name}" for name in ("autodoc", "autosummary", "napoleon", "viewcode")),
    "myst_parser",
]
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_use_ivar = True  # attributes are described once, in the class's own docstring
add_module_names = False
maximum_signature_line_length = 100
myst_heading_anchors = 4  # as GitHub names them
templates_path = ["_templates"]
html_theme = "alabaster"
html_theme_options = {
    "description": passk_guard.__doc__.partition(": ")[2].capitalize(),
    "fixed_sidebar": True,
    "page_width": "1200px",
    "code_font_size": "0.78em",
}

HERE = Path(__file__).parent
# Documents that stand elsewhere in the repository, and the page here that includes each.
ELSEWHERE = {
    "../README.md": "index.md",
    "../examples/README.md": "examples.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../CHANGELOG.md": "changelog.md",
}


def with_links_from_here(text, folder):
    """Links are written for GitHub, relative to a document's own ``folder``."""

    def moved(link):
        path, mark, anchor = link[1].partition("#")
        if "://" in path or not path:
            return link[0]
        path = os.path.relpath(HERE / folder / path, HERE)
        return f"]({ELSEWHERE.get(path, path)}{mark}{anchor})"

    return re.sub(r"\]\(([^)\s]+)\)", moved, text)


def read(app, name, source):
    """A page of this folder, as it stands in ``source[0]``."""
    if app.env.doc2path(name, base=False).suffix == ".md":
        source[0] = with_links_from_here(source[0], ".")


def included(app, path, name, source):
    """A document from elsewhere."""
    folder = (app.srcdir / path).parent
    source[0] = with_links_from_here(source[0], os.path.relpath(folder, HERE))


def setup(app):
    """Called by Sphinx."""
    app.connect("source-read", read)
    app.connect("include-read", included)
