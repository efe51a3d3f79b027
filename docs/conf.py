"""How Sphinx builds the documentation: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path

import dcc

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "dcc"
copyright = "the dcc authors, Apache-2.0"
version = release = dcc.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "pages",
    "sequence",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"dcc {release}"
html_static_path = ["_static"]
html_css_files = ["dcc.css"]
html_copy_source = False
html_show_sphinx = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

# What no block says is output, not Python.
highlight_language = "none"

# Docstrings put code between single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_class_signature = "separated"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
doctest_global_setup = "from dcc import *"
