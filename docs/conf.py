"""The documentation site. `make docs` builds it; every warning is an error there."""

from __future__ import annotations

import sys
from pathlib import Path

import data_layer

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

project = "Data layer"
author = "The contributors"
version = release = data_layer.__version__
language = "en"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "documentation",  # tools/documentation: what is generated from settings, commands, errors and entities.
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# Otherwise --apply becomes a dash and a word, which no command understands, and quotes are typographic when copied.
smartquotes = False

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"Data layer {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_copyright = False
