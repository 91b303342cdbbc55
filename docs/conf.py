"""Sphinx: the API reference, from docstrings. ``make docs`` builds it into build/docs."""

import passk_guard

project = "passk-guard"
release = passk_guard.__version__
copyright = "The passk-guard authors"
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_use_ivar = True  # attributes are described once, in the class's own docstring
add_module_names = False
maximum_signature_line_length = 100
templates_path = ["_templates"]
html_theme = "alabaster"
html_theme_options = {"description": passk_guard.__doc__.partition(": ")[2], "fixed_sidebar": True}
